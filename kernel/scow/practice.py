"""What a process on standby does before it is needed: walks the ways that its work will take, without effect.

A forked process pays for each page that it is the first to touch (6 µs and more on a virtual machine, and a start
touches some thousands of them). On standby it pays before anybody waits.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from scow.engine import images
from scow.engine.core import Core
from scow.engine.opening import lay_ready, open_core
from scow.errors import NotFound, ScowError
from scow.model.container import Status
from scow.paths import Paths
from scow.plugins import STAGES
from scow.state import containers
from scow.state import images as rows
from scow.supervisor.protocol import SuperviseRequest


def practise(last: SuperviseRequest | None, called: Callable[[], bool] = lambda: False) -> None:
    """Run an event loop; open the engine that was used last, if it is still there, and leave it ready. Never fails.

    Ends early when `called` says that there is work.
    """
    with suppress(Exception):
        trio.run(_exercise)
    if called() or last is None or not os.path.exists(Path(last.root) / "state.db"):
        return
    with suppress(ScowError, OSError):
        config_file = Path(last.config) if last.config else None
        core = open_core(Paths.of(Path(last.root), Path(last.run)), last.settings, config_file)
        lay_ready(core)
        for stage in STAGES:
            core.registry.hook(stage)
        for stage in ("mount", "network", "exec"):
            core.registry.pick(stage)
        _look_around(core)


def _look_around(core: Core) -> None:
    """Read what a command reads: the newest image, its documents and layers, the containers."""
    core.registry.transports()
    containers.listing(core.database, (Status.RUNNING, Status.PAUSED, Status.REMOVING))
    with suppress(NotFound):
        containers.find(core.database, "none")
    newest = rows.newest_image(core.database)
    if newest is not None:
        images.find(core, str(newest.config))
        images.manifest_of(core, newest)
        images.config_of(core, newest)


async def _exercise() -> None:
    """Nurseries, streams, timeouts, as a supervisor has them."""
    ours, theirs = socket.socketpair()
    left = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    right = trio.SocketStream(trio.socket.from_stdlib_socket(theirs))
    async with left, right, trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await left.send_all(b"x")
        with trio.move_on_after(1):
            await right.receive_some(1)
        nursery.cancel_scope.cancel()
