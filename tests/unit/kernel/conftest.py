"""Toy plugins: modules written for one test, found as a stranger's entry points would be."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scow.config import Config
from scow.content.store import ContentStore
from scow.engine.core import Core
from scow.entrypoints import EntryPoint
from scow.events import EventLog
from scow.paths import Paths
from scow.plugins import Registry
from scow.stages import Stages
from scow.state.database import Database

Toy = Callable[..., list[EntryPoint]]

_HEAD = """
from contextlib import asynccontextmanager
from functools import partial
import trio
from scow.api import *
from scow.api import ProbeResult
class Base:
    def __init__(self, context):
        self.context = context
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    """Make a plugin of a name for some stages from source; `raw` source has no head with imports and `Base`."""
    folder = tmp_path / "toys"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    made: list[str] = []

    def make(name: str, stages: str, source: str, *, raw: bool = False) -> list[EntryPoint]:
        module = f"toy_{name}_{len(made)}"
        made.append(module)
        (folder / f"{module}.py").write_text(("" if raw else _HEAD) + textwrap.dedent(source))
        return [EntryPoint(f"scow.{stage}", name, module, "Plugin", "toys", "1.0") for stage in stages.split()]

    yield make
    for module in made:
        sys.modules.pop(module, None)


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """An engine's directories, made."""
    place = Paths(tmp_path / "root", tmp_path / "run")
    place.make()
    return place


@pytest.fixture
def stages_of(paths: Paths) -> Callable[..., tuple[Stages, EventLog]]:
    """The stages over some toys, and the log that they tell their events to."""

    def build(found: list[EntryPoint], config: Config | None = None) -> tuple[Stages, EventLog]:
        events = EventLog(paths.events, "test")
        return Stages(Registry(paths, config or Config(), found), events), events

    return build


@pytest.fixture
def core_of(paths: Paths) -> Iterator[Callable[..., Core]]:
    """A whole engine's means over some toys."""
    opened: list[Database] = []

    def build(found: list[EntryPoint], config: Config | None = None) -> Core:
        registry, events = Registry(paths, config or Config(), found), EventLog(paths.events, "test")
        content, database = ContentStore(paths.content), Database(paths.database)
        content.prepare()
        opened.append(database)
        stages = Stages(registry, events)
        return Core(paths, config or Config(), None, registry, events, stages, content, database)

    yield build
    for database in opened:
        database.close()
