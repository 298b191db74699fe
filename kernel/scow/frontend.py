"""Finds the command line among the front-end plugins and runs it in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import cast

from scow.entrypoints import scan

GROUP = "scow.frontend"


def load_frontend(name: str = "cli") -> Callable[[list[str]], int] | None:
    """The front-end of a name, imported; None when no distribution has one."""
    for point in scan():
        if point.group == GROUP and point.name == name:
            return cast("Callable[[list[str]], int]", point.load())
    return None


def run_frontend(arguments: list[str], frontend: Callable[[list[str]], int] | None) -> int:
    """Run the command line that was loaded; gives its exit code."""
    if frontend is None:
        sys.stderr.write("scow: no command line is installed\nhint: install scow again: its metadata is not found\n")
        return 1
    return frontend(arguments)
