"""Putting an engine together: directories, configuration, plugins, state."""

from __future__ import annotations

import os
import secrets
from dataclasses import replace
from pathlib import Path

from scow.config import Config, load_config
from scow.content.store import ContentStore
from scow.engine.core import Core
from scow.errors import Denied, Exhausted, Unsupported
from scow.events import EventLog
from scow.log import configure
from scow.paths import Paths
from scow.plugins import Registry
from scow.stages import Stages
from scow.state.database import Database
from scow.state.reserve import keep_reserve

#: What a process on standby has opened for the command that will come.
_ready: Core | None = None


def lay_ready(core: Core) -> None:
    """Keep an engine's means for the next `open_core` with the same directories and configuration."""
    global _ready
    _ready = core


def open_core(
    paths: Paths,
    config: Config,
    config_file: Path | None,
    *,
    command: str = "",
) -> Core:
    """An engine's means, ready for use. Raises Denied (not root), Exhausted, Corrupt, Unsupported."""
    if os.geteuid() != 0:
        raise Denied("scow needs root", hint="run it with sudo")
    ready = _take_ready(paths, config)  # which looks whether the directories are still there
    try:
        paths.make()
    except OSError as error:
        raise Exhausted(f"{error.filename or paths.root} can't be made: {error.strerror}") from None
    if ready is not None:
        return _for_command(ready, config_file, command)
    keep_reserve(paths.root)
    content = ContentStore(paths.content)
    content.prepare()
    registry = Registry(paths, config)
    events = EventLog(paths.events, command or secrets.token_hex(8))
    return Core(
        paths=paths,
        config=config,
        config_file=_absolute(config_file),
        registry=registry,
        events=events,
        stages=Stages(registry, events),
        content=content,
        database=Database(paths.database),
    )


def _take_ready(paths: Paths, config: Config) -> Core | None:
    """What was laid ready, once, if it is what is wanted and its directories haven't been replaced meanwhile."""
    global _ready
    core, _ready = _ready, None
    if core is None or core.paths != paths or core.config != config:
        return None
    if not core.database.is_current() or not (paths.run / "containers").is_dir():
        return None
    # What could not work a while ago may work now.
    core.registry.forget_problems()
    return core


def _for_command(core: Core, config_file: Path | None, command: str) -> Core:
    events = EventLog(core.paths.events, command or secrets.token_hex(8))
    return replace(core, config_file=_absolute(config_file), events=events, stages=Stages(core.registry, events))


def _absolute(path: Path | None) -> str | None:
    return str(path.absolute()) if path else None


def read_settings(config_file: Path | None, log_level: str | None, log_format: str | None) -> Config:
    """The configuration, with logging set up by it or by the command line. Raises Invalid."""
    if os.uname().sysname != "Linux":
        raise Unsupported("scow runs on Linux only")
    config = load_config(config_file)
    configure(log_level or config.log_level, log_format or config.log_format)
    return config
