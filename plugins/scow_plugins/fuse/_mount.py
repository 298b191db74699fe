"""A container's root on fuse-overlayfs, held: its layers, and a writable layer in its scratch directory on top."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import trio

from scow.api import MountRequest, Rootfs
from scow.api.aio import cleanup
from scow.api.layers import claimed_scratch, writable_layer
from scow_plugins.fuse._daemon import FAREWELL, Daemon, Stack, stack_of, start

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from scow_plugins.fuse import Config

#: What is written goes to the program at once: `commit` reads the writable layer beside a mount that lives, and a
#: killed supervisor must not take with it what its container has written.
_OPTIONS: Final = ("writeback=0",)


@asynccontextmanager
async def mounted(request: MountRequest, config: Config, log: FilteringBoundLogger) -> AsyncIterator[Rootfs]:
    """Hold the mount; what was written stays in `scratch`. Raises Unsupported, Conflict, OSError."""
    stack = stack_of(request.layers) if request.layers else Stack(request.scratch, (request.scratch / "empty",))
    options = (*_OPTIONS, "fsync=0") if request.volatile else _OPTIONS
    with claimed_scratch(request.scratch) as lock:
        upper, work, _ = writable_layer(request, (), request.layers[-1].path if request.layers else None)
        token = secrets.token_hex(16)
        entry = request.journal.hold(mount=token)
        try:
            # As long as the program lives, nobody else may have the writable layer: it has the lock, too.
            daemon = start(
                config.program,
                replace(stack, upper=upper, work=work),
                token=token,
                options=options,
                keep=(lock,),
            )
        except BaseException:
            request.journal.release(entry)
            raise
        try:
            yield Rootfs(request.driver, daemon.root)
        finally:
            await _leave(daemon, log)
            request.journal.release(entry)


async def _leave(daemon: Daemon, log: FilteringBoundLogger) -> None:
    """The mount's end is the program's; one that stays is killed."""
    if (status := daemon.process.poll()) is not None:
        # Its container has lost the root file system.
        log.error("fuse.died", status=status, reason=daemon.words())
        daemon.close()
        daemon.kill()
        return
    pidfd = os.pidfd_open(daemon.process.pid)
    try:
        daemon.close()
        with cleanup(FAREWELL, "wait for fuse-overlayfs"):
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)
        daemon.kill()
