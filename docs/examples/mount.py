"""mount: a wrapper that lets no container start on a disk that is nearly full.

[plugins.headroom]
megabytes = 500
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from scow.api import Exhausted, MountHeld, MountRequest, PluginContext, Rootfs, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """`[plugins.headroom]`."""

    megabytes: int = 100


class Plugin:
    """Goes around every storage driver's mount."""

    def __init__(self, context: PluginContext) -> None:
        self._wanted = context.config(Settings).megabytes

    @hookimpl(wrapper=True)
    def mount(self, request: MountRequest) -> Generator[None, MountHeld | None, MountHeld | None]:
        """Look at the disk when the mount is entered, not when it is claimed: claims do no I/O."""
        held = yield
        return None if held is None else self._checked(request, held)

    @asynccontextmanager
    async def _checked(self, request: MountRequest, held: MountHeld) -> AsyncIterator[Rootfs]:
        disk = os.statvfs(request.scratch)
        free = disk.f_bavail * disk.f_frsize >> 20
        if free < self._wanted:
            raise Exhausted(f"{free} MB are free for container {request.container[:12]}, {self._wanted} MB are wanted")
        async with held as rootfs:
            yield rootfs
