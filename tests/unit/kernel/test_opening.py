"""An engine laid ready on standby is the one that a command opens, if it is still what the command wants."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from scow.api import ProbeResult
from scow.config import Config
from scow.engine import opening
from scow.engine.core import Core
from scow.engine.opening import lay_ready, open_core
from scow.paths import Paths
from scow.state.database import Database


@pytest.fixture(autouse=True)
def _root(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    opened: list[Database] = []
    connect = Database._open

    def noted(self: Database) -> None:
        connect(self)
        opened.append(self)

    monkeypatch.setattr(Database, "_open", noted)
    yield
    opening._ready = None
    for database in opened:
        database.close()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "root", tmp_path / "run")


@pytest.fixture
def core(paths: Paths) -> Core:
    made = open_core(paths, Config(), None)
    lay_ready(made)
    return made


def test_it_is_taken_once(paths: Paths, core: Core, tmp_path: Path) -> None:
    again = open_core(paths, Config(), tmp_path / "config.toml", command="c1")
    assert again.registry is core.registry
    assert again.database is core.database
    assert (again.config_file, again.events.command) == (str(tmp_path / "config.toml"), "c1")
    assert open_core(paths, Config(), None).database is not core.database


def test_its_events_are_the_command_s(paths: Paths, core: Core) -> None:
    again = open_core(paths, Config(), None, command="c2")
    with again.events.span("mount", "x", "y"):
        pass
    assert {event.attributes["command"] for event in again.events.past()} == {"c2"}
    assert again.stages is not core.stages


def test_another_engine_is_opened_anew(paths: Paths, core: Core, tmp_path: Path) -> None:
    assert open_core(Paths(tmp_path / "other", paths.run), Config(), None).database is not core.database
    lay_ready(core)
    assert open_core(paths, Config(storage="native"), None).registry is not core.registry


@pytest.mark.parametrize("which", ["root", "run"])
def test_directories_that_were_removed_are_made_anew(paths: Paths, core: Core, which: str) -> None:
    shutil.rmtree(getattr(paths, which))
    again = open_core(paths, Config(), None)
    assert again.database is not core.database
    assert again.database.is_current()
    assert (paths.run / "containers").is_dir()


def test_a_plugin_that_could_not_work_is_asked_again(paths: Paths, core: Core) -> None:
    plugin = core.registry.get("mount", "native")
    reasons = iter([ProbeResult("not yet"), None, ProbeResult("never asked")])
    plugin.instance.probe = lambda: next(reasons)
    assert plugin.problem() == "not yet"
    assert plugin.problem() == "not yet"
    again = open_core(paths, Config(), None).registry.get("mount", "native")
    assert again is plugin
    assert again.problem() is None
    lay_ready(core)
    open_core(paths, Config(), None)
    assert again.problem() is None  # what has worked isn't asked again
