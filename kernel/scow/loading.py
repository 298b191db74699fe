"""Importing ahead: all that commands may need, or what a supervisor needs; and seeing that it has changed since."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from typing import Final

from scow import entrypoints
from scow.config import SYSTEM_FILE, load_config
from scow.errors import ScowError
from scow.frontend import load_frontend
from scow.log import configure

#: The stages that a supervisor enters.
_HOLDING: Final = ("scow.mount", "scow.network", "scow.exec")


def load_everything() -> Callable[[list[str]], int] | None:
    """Import the front-end, the engine and every module of every plugin; what fails is met again by the worker."""
    entrypoints.keep()
    frontend = load_frontend()
    importlib.import_module("scow.supervisor.main")
    importlib.import_module("scow.engine.facade")
    _load_plugins(entrypoints.scan())
    with contextlib.suppress(ScowError):
        config = load_config()  # msgspec looks at a type when it is first converted to
        configure(config.log_level, config.log_format)
    return frontend


def load_supervisor() -> None:
    """Import what a supervisor needs: its own code, and every module of the plugins that hold a container."""
    entrypoints.keep()
    importlib.import_module("scow.supervisor.main")
    _load_plugins([point for point in entrypoints.scan() if point.group in _HOLDING])


def _load_plugins(points: list[entrypoints.EntryPoint]) -> None:
    for module in sorted({point.module for point in points}):
        _import_all(module)
    for point in set(points):
        _warm_up(point)


def _import_all(name: str) -> None:
    try:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    except Exception:  # noqa: BLE001 - a stranger's plugin; the worker names it
        pass


def _warm_up(point: entrypoints.EntryPoint) -> None:
    """A plugin's factory may have a static method `warm`: what it computes once serves every command."""
    try:
        warm_up = getattr(point.load(), "warm", None)
        if warm_up is not None:
            warm_up()
    except Exception:  # noqa: BLE001 - a stranger's plugin; the worker names it
        pass


def sources() -> list[str]:
    """Everything that was loaded: modules, the directories they come from, the configuration."""
    files = [module.__dict__.get("__file__") for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    paths = {path for path in files if path and "scow" in path}
    paths.update(path for path in sys.path if path)
    paths.add(str(SYSTEM_FILE))
    return sorted(paths)


def stamp(paths: list[str]) -> list[int]:
    """The age of files and directories; what is missing counts as 0."""
    return [_mtime(path) for path in paths]


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
