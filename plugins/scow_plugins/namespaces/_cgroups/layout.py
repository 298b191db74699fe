"""Which hierarchies of control groups this machine has, read from mountinfo. Parsing is pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Hierarchy", "hierarchies", "parse_mountinfo"]

_CONTROLLERS: Final = frozenset(
    (
        *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"),
        *("net_cls", "net_prio", "perf_event", "rdma", "misc"),
    )
)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted tree of control groups. A named one of version 1 has `name=…` among its controllers."""

    path: str
    version: int
    controllers: frozenset[str]

    @property
    def label(self) -> str:
        """Its directory's name beneath /sys/fs/cgroup, in a container too; empty for version 2 alone."""
        return self.path.rpartition("/")[2]


def parse_mountinfo(text: str) -> list[Hierarchy]:
    """The hierarchies in a mountinfo (proc(5)); each once, controllers of version 2 are left open."""
    found: dict[str, Hierarchy] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        device, root, path = fields[2], fields[3], _unescape(fields[4])
        if root.startswith("/.."):  # outside of our cgroup namespace
            continue
        options = kind[2].split(",")
        names = frozenset(o for o in options if o in _CONTROLLERS or o.startswith("name="))
        version = 2 if kind[0] == "cgroup2" else 1
        found.setdefault(device, Hierarchy(path, version, names if version == 1 else frozenset()))
    return list(found.values())


def hierarchies() -> list[Hierarchy]:
    """This machine's, with the controllers that version 2 offers at its visible root. Raises OSError."""
    result = []
    for hierarchy in parse_mountinfo(Path("/proc/self/mountinfo").read_text()):
        if hierarchy.version == 2:
            offered = Path(hierarchy.path, "cgroup.controllers").read_text().split()
            hierarchy = Hierarchy(hierarchy.path, 2, frozenset(offered))
        result.append(hierarchy)
    return result


def _unescape(path: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, char)
    return path
