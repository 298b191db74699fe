"""Cleaning up after the dead: what a killed supervisor held is given back to the plugins that acquired it."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import structlog

from scow.engine.core import Core
from scow.engine.removal import discard
from scow.errors import Conflict, NotFound, ScowError, Unsupported
from scow.lifecycle import Happening
from scow.model.container import Container, ContainerState, Status
from scow.state import containers
from scow.state.journal import unreleased
from scow.state.liveness import take


def reclaim(core: Core) -> None:
    """Reclaim every dead supervisor's handles, and bring the records in line. Quick when nobody died.

    Never fails because of one container: what can't be reclaimed now is tried by the next command.
    """
    with os.scandir(core.paths.run / "containers") as entries:
        for entry in entries:
            _try_one(core, entry.name)
    # After a reboot the run directories are gone, and the records still say "running".
    for container in containers.listing(core.database, (Status.RUNNING, Status.PAUSED, Status.REMOVING)):
        if not core.paths.rundir(container.spec.id).exists():
            # It may have ended since we read its record: who takes the lock reads it again.
            _try_one(core, container.spec.id)


def _try_one(core: Core, container_id: str) -> None:
    try:
        _reclaim_one(core, container_id)
    except (ScowError, OSError) as error:
        _log("container", container_id[:12], error)


def _log(key: str, value: object, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    structlog.get_logger("scow").warning("reclaim.failed", reason=reason, **{key: value})


def _reclaim_one(core: Core, container_id: str) -> None:
    rundir = core.paths.rundir(container_id)
    lock = take(rundir)
    if lock is None:
        return
    try:
        if give_back(core, rundir):
            with contextlib.suppress(NotFound):
                started = (rundir / "journal").exists()
                _bury(core, containers.find(core.database, container_id), started=started)
            shutil.rmtree(rundir, ignore_errors=True)
    finally:
        os.close(lock)


def give_back(core: Core, rundir: Path) -> bool:
    """Have the plugins undo what is on the journal; gives whether all of it is gone now."""
    done = True
    for stage, name, handle in unreleased(rundir):
        try:
            plugin = core.registry.get(stage, name)
            if plugin.broken is not None:
                raise Unsupported(plugin.broken)
            if hasattr(plugin.instance, "reclaim"):
                with core.events.span(f"un{stage}", rundir.name, name):
                    plugin.instance.reclaim(handle)
        except Exception as error:  # noqa: BLE001 - the border to a stranger's code
            _log("handle", {"plugin": name, **handle}, error)
            done = False
    return done


def _bury(core: Core, container: Container, *, started: bool) -> None:
    """A container whose supervisor is dead doesn't run any more; `started`: it had begun to start it."""
    status, spec = container.state.status, container.spec
    if status in (Status.RUNNING, Status.PAUSED):

        def died(state: ContainerState) -> ContainerState:
            why = "its supervisor was killed"
            return replace(state, pid=0, exit_code=137, error=why, finished=time.time(), addresses=(), ports=())

        with contextlib.suppress(Conflict, NotFound):
            container = containers.change(core.database, spec.id, Happening.EXIT, died)
            core.events.emit_container("die", spec, exitCode=137)
    if status is Status.REMOVING or (spec.auto_remove and (started or status is not Status.CREATED)):
        discard(core, container)
