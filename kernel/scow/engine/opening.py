"""Putting an engine together: directories, configuration, plugins, state."""

from __future__ import annotations

import os
import secrets
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
    try:
        paths.make()
    except OSError as error:
        raise Exhausted(f"{error.filename or paths.root} can't be made: {error.strerror}") from None
    keep_reserve(paths.root)
    content = ContentStore(paths.content)
    content.prepare()
    registry = Registry(paths, config)
    events = EventLog(paths.events, command or secrets.token_hex(8))
    return Core(
        paths=paths,
        config=config,
        config_file=str(config_file.absolute()) if config_file else None,
        registry=registry,
        events=events,
        stages=Stages(registry, events),
        content=content,
        database=Database(paths.database),
    )


def read_settings(config_file: Path | None, log_level: str | None, log_format: str | None) -> Config:
    """The configuration, with logging set up by it or by the command line. Raises Invalid."""
    if os.uname().sysname != "Linux":
        raise Unsupported("scow runs on Linux only")
    config = load_config(config_file)
    configure(log_level or config.log_level, log_format or config.log_format)
    return config
