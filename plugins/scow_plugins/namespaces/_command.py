"""Finding the program that a container's command names, inside the container, as its user sees it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from scow.api import NoCommand, NotExecutable

__all__ = ["environment", "find_program"]

from scow_plugins.namespaces._defaults import PATH
from scow_plugins.namespaces._words import PERMISSION


def environment(given: Iterable[str], home: str, *, tty: bool) -> tuple[str, ...]:
    """The environment with Docker's defaults for PATH, HOME and TERM; of several values for a name the last counts."""
    found: dict[str, str] = {"PATH": PATH, "HOME": home or "/"}
    if tty:
        found["TERM"] = "xterm"
    for entry in given:
        name, separator, value = entry.partition("=")
        if separator and name:
            found[name] = value
    return tuple(f"{name}={value}" for name, value in found.items())


def find_program(name: str, env: Iterable[str]) -> str:
    """The path to execute. To be called inside the container, with the user's rights.

    Raises NoCommand (127) and NotExecutable (126) with Docker's words.
    """
    if "/" in name:
        return _direct(name)
    path = next((entry[5:] for entry in env if entry.startswith("PATH=")), "")
    denied = False
    for directory in path.split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            if not stat.S_ISREG(os.stat(candidate).st_mode):
                continue
        except OSError as error:
            denied = denied or isinstance(error, PermissionError)
            continue
        if os.access(candidate, os.X_OK, effective_ids=True):
            return candidate
        denied = True
    if denied:
        raise NotExecutable(f'exec: "{name}": permission denied', hint=PERMISSION)
    raise NoCommand(
        f'exec: "{name}": executable file not found in $PATH', hint=f"looked in {path or 'nothing: PATH is empty'}"
    )


def _direct(name: str) -> str:
    try:
        found = os.stat(name)
    except PermissionError:
        raise NotExecutable(f'exec: "{name}": permission denied', hint=PERMISSION) from None
    except OSError as error:
        raise NoCommand(f'exec: "{name}": stat {name}: {(error.strerror or "not found").lower()}') from None
    if stat.S_ISDIR(found.st_mode):
        raise NotExecutable(f'exec: "{name}": is a directory')
    if not stat.S_ISREG(found.st_mode) or not os.access(name, os.X_OK, effective_ids=True):
        raise NotExecutable(f'exec: "{name}": permission denied', hint=PERMISSION)
    return name
