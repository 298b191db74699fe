"""What the dead leave behind is given back to the plugins, and the records are brought in line."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from scow.engine.core import Core
from scow.engine.reclaim import reclaim
from scow.entrypoints import EntryPoint
from scow.errors import NotFound
from scow.lifecycle import Happening
from scow.model.container import Container, ContainerSpec, Status
from scow.model.process import Isolation, ProcessSpec
from scow.state import containers
from scow.state.journal import JournalFile
from scow.state.liveness import take

from .conftest import Toy

CoreOf = Callable[..., Core]
ID = "a1" * 32
TOY = """
log = []
class Plugin(Base):
    log = log
    @hookimpl
    def mount(self, request): return None
    @hookimpl
    def network(self, request): return None
    def erase(self, scratch): log.append(("erase", scratch.name))
    def reclaim(self, handle):
        {first}
        log.append(handle)
"""


def made(core: Core, *, auto_remove: bool = False, status: Status = Status.CREATED, name: str = "web") -> Container:
    container = containers.insert(
        core.database,
        ContainerSpec(
            id=ID if name == "web" else name * 32, name=name, image="i", image_id="i", manifest="m", layers=(),
            storage="toy", network="toy", runtime="toy", process=ProcessSpec(("true",)), isolation=Isolation("h"),
            created=1.0, auto_remove=auto_remove,
        ),
    )  # fmt: skip
    steps = {
        Status.CREATED: [], Status.RUNNING: [Happening.START], Status.PAUSED: [Happening.START, Happening.PAUSE],
        Status.EXITED: [Happening.START, Happening.EXIT], Status.REMOVING: [Happening.DISCARD],
    }[status]  # fmt: skip
    for happening in steps:
        container = containers.change(
            core.database, container.spec.id, happening, lambda s: replace(s, pid=9, exit_code=3)
        )
    (core.paths.container(container.spec.id) / "scratch").mkdir(parents=True)
    return container


def dead(core: Core, container: str = ID) -> Path:
    """The run directory of a supervisor that was killed, with two handles in its journal."""
    rundir = core.paths.rundir(container)
    rundir.mkdir()
    (rundir / "lock").touch()
    journal = JournalFile(rundir)
    journal.bound("mount", "toy").hold(a=1)
    journal.bound("network", "toy").hold(b=2)
    journal.close()
    return rundir


def log_of(found: list[EntryPoint]) -> list[Any]:
    return found[0].load().log  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def found(toy: Toy) -> list[EntryPoint]:
    return toy("toy", "mount network", TOY.format(first="pass"))


@pytest.mark.parametrize("status", [Status.RUNNING, Status.PAUSED])
def test_a_killed_supervisor(core_of: CoreOf, found: list[EntryPoint], status: Status) -> None:
    core = core_of(found)
    made(core, status=status)
    rundir = dead(core)
    reclaim(core)
    assert log_of(found) == [{"b": 2}, {"a": 1}]
    assert not rundir.exists()
    state = containers.find(core.database, "web").state
    assert (state.status, state.exit_code, state.pid) == (Status.EXITED, 137, 0)
    assert "killed" in state.error
    told = [event.action for event in core.events.past()]
    assert set(told) == {"unnetwork", "unmount", "die"}
    assert told[-1] == "die"
    reclaim(core)
    assert len(log_of(found)) == 2


@pytest.mark.parametrize("status", [Status.CREATED, Status.RUNNING, Status.EXITED])
def test_a_killed_supervisor_of_rm(core_of: CoreOf, found: list[EntryPoint], status: Status) -> None:
    core = core_of(found)
    made(core, auto_remove=True, status=status)
    dead(core)
    reclaim(core)
    with pytest.raises(NotFound):
        containers.find(core.database, "web")
    assert not core.paths.container(ID).exists()
    assert ("erase", "scratch") in log_of(found)


def test_created_but_never_started_stays(core_of: CoreOf, found: list[EntryPoint]) -> None:
    core = core_of(found)
    made(core, auto_remove=True)
    core.paths.rundir(ID).mkdir()  # its supervisor is about to take the lock
    reclaim(core)
    assert containers.find(core.database, "web").state.status is Status.CREATED


def test_the_living_are_left_alone(core_of: CoreOf, found: list[EntryPoint]) -> None:
    core = core_of(found)
    made(core, status=Status.RUNNING)
    rundir = dead(core)
    lock = take(rundir)
    assert lock is not None
    reclaim(core)
    assert log_of(found) == []
    assert containers.find(core.database, "web").state.status is Status.RUNNING
    os.close(lock)


@pytest.mark.parametrize(("status", "after"), [(Status.RUNNING, Status.EXITED), (Status.PAUSED, Status.EXITED)])
def test_after_a_reboot(core_of: CoreOf, found: list[EntryPoint], status: Status, after: Status) -> None:
    core = core_of(found)
    made(core, status=status)
    reclaim(core)
    assert containers.find(core.database, "web").state.status is after
    assert not core.paths.rundir(ID).exists()


def test_a_removal_that_was_killed_is_finished(core_of: CoreOf, found: list[EntryPoint]) -> None:
    core = core_of(found)
    made(core, status=Status.REMOVING)
    reclaim(core)
    assert containers.listing(core.database) == []
    assert not core.paths.container(ID).exists()


def test_one_that_ends_meanwhile_keeps_its_exit_code(
    core_of: CoreOf, found: list[EntryPoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its supervisor records the end and leaves, between our look at the records and our look at its directory."""
    core = core_of(found)
    made(core, status=Status.RUNNING)
    real = containers.listing

    def listing(*arguments: Any) -> list[Container]:
        listed = real(*arguments)
        containers.change(core.database, ID, Happening.EXIT)
        return listed

    monkeypatch.setattr(containers, "listing", listing)
    reclaim(core)
    state = containers.find(core.database, "web").state
    assert (state.exit_code, state.error) == (3, "")


@pytest.mark.parametrize("first", ["raise KeyError('netlink')", "raise OSError('busy')", "raise Unavailable('later')"])
def test_what_fails_is_tried_again(core_of: CoreOf, toy: Toy, first: str) -> None:
    core = core_of(toy("toy", "mount network", TOY.format(first=first)))
    made(core, status=Status.RUNNING)
    rundir = dead(core)
    with capture_logs() as logs:
        reclaim(core)
    assert len(logs) == 2
    assert rundir.exists()
    healed = toy("toy", "mount network", TOY.format(first="pass"))
    reclaim(core_of(healed))
    assert log_of(healed) == [{"b": 2}, {"a": 1}]
    assert not rundir.exists()


@pytest.mark.parametrize("source", [None, "raise ImportError('x')"])
def test_a_plugin_that_is_gone_or_broken(core_of: CoreOf, toy: Toy, source: str | None) -> None:
    """Its handles are kept until it is there again; other containers don't wait for it."""
    core = core_of(toy("toy", "mount network", source) if source else [])
    made(core, status=Status.RUNNING)
    made(core, status=Status.RUNNING, name="bb")
    rundir = dead(core)
    core.paths.rundir("bb" * 32).mkdir()
    with capture_logs():
        reclaim(core)
    assert rundir.exists()
    assert containers.find(core.database, "bb").state.status is Status.EXITED


def test_strange_things_in_the_run_directory(core_of: CoreOf, found: list[EntryPoint]) -> None:
    core = core_of(found)
    made(core, status=Status.RUNNING)
    (core.paths.run / "containers" / "a-file").touch()
    core.paths.rundir("unknown").mkdir()
    dead(core)
    with capture_logs():
        reclaim(core)
    assert not core.paths.rundir("unknown").exists()
    assert containers.find(core.database, "web").state.status is Status.EXITED
