"""Storage by plain copies: works on every file system, at the price of time and space.

A snapshot is the whole tree of its layer and all below; a container's root is a copy of the topmost one, made at its
first start.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from scow.api import (
    MountHeld,
    MountRequest,
    PluginContext,
    ProbeResult,
    Snapshot,
    StorageConfig,
    StorageDriver,
    UnpackRequest,
    UnpackRun,
    Written,
    hookimpl,
)


class Plugin(StorageDriver):
    """unpack and mount, and the store of the snapshots."""

    rests = True

    def __init__(self, context: PluginContext) -> None:
        super().__init__(context)
        self._config = context.config(StorageConfig)

    def probe(self) -> ProbeResult | None:
        import os

        return None if os.geteuid() == 0 else ProbeResult("copying an image's owners and devices needs root")

    @hookimpl(trylast=True)
    def unpack(self, request: UnpackRequest) -> UnpackRun | None:
        if not self.unpacks(request):
            return None
        from scow_plugins.native._unpack import unpack

        return partial(unpack, self.store(), self._config, request)

    @hookimpl(trylast=True)
    def mount(self, request: MountRequest) -> MountHeld | None:
        if not self.mounts(request):
            return None
        from scow_plugins.native._mount import mounted

        return mounted(request)

    def changes(self, layers: tuple[Snapshot, ...], scratch: Path) -> AbstractContextManager[Written]:
        """What a container has changed. Raises OSError."""
        from scow.api.layers import tree_changes

        return tree_changes(layers[-1].path if layers else None, scratch / "rootfs")
