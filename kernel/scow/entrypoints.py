"""Finds plugins without importing any: reads `entry_points.txt` of the installed distributions by hand.

importlib.metadata would give the same answer and costs 40 to 60 ms to import and ask; a test holds the two equal.
Standard library only, and little of it: the dispatcher and the launcher come through here.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

PREFIX = "scow."


class EntryPoint(NamedTuple):
    """One line of a distribution's entry points."""

    group: str
    name: str
    module: str
    attribute: str
    distribution: str
    version: str

    def load(self) -> object:
        """Import the module and give the object. Raises whatever the import raises."""
        __import__(self.module)
        target: object = sys.modules[self.module]
        for part in self.attribute.split("."):
            target = getattr(target, part)
        return target


#: What the launcher has found for its children; it leaves when a directory on `sys.path` changes.
_kept: list[EntryPoint] | None = None


def keep() -> None:
    """Scan once for this process and all that it forks."""
    global _kept
    _kept = scan()


def scan(path: list[str] | None = None) -> list[EntryPoint]:
    """All entry points of scow's groups on `sys.path` (or `path`); the first distribution of a name wins."""
    if path is None and _kept is not None:
        return list(_kept)
    found: list[EntryPoint] = []
    seen: set[str] = set()
    for directory in sys.path if path is None else path:
        try:
            names = sorted(os.listdir(directory or "."))
        except OSError:
            continue
        for entry in names:
            if entry.endswith((".dist-info", ".egg-info")):
                _read(os.path.join(directory, entry), seen, found)
    return found


def _read(folder: str, seen: set[str], found: list[EntryPoint]) -> None:
    name, _, version = os.path.basename(folder).rsplit(".", 1)[0].partition("-")
    key = name.lower().replace("-", "_").replace(".", "_")
    if key in seen:
        return
    seen.add(key)
    try:
        with open(os.path.join(folder, "entry_points.txt"), encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return
    group = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            group = line[1:-1].strip()
        elif line and line[0] not in "#;" and group.startswith(PREFIX):
            found.append(_parse(group, line, name, version.partition("-")[0]))


def _parse(group: str, line: str, distribution: str, version: str) -> EntryPoint:
    name, _, value = line.partition("=")
    module, _, attribute = value.split("[")[0].strip().partition(":")
    return EntryPoint(group, name.strip(), module.strip(), attribute.strip(), distribution, version)
