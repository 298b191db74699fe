"""Mounts of a container that isn't running: which of them a path leads into.

A running container's root is seen with its mounts; of one that isn't, only the root file system is mounted. Where a
path leads into a place at which something of the host's would be mounted, it goes on in that (docker mounts them for a
`cp`). What lies in a mount is not part of `cp CONTAINER:/`, nor of an export.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from typing import Final

from scow.model.container import Container, Status
from scow.model.process import BindMount


@dataclass(frozen=True, slots=True)
class Mounted:
    """Directories and files of the host's at their places; none for a container that runs."""

    binds: tuple[BindMount, ...] = ()

    def covering(self, path: bytes) -> tuple[BindMount, bytes] | None:
        """The innermost mount in which an absolute path lies, and the path in there (empty: the mount itself)."""
        path = posixpath.normpath(b"/" + path.lstrip(b"/"))
        found: tuple[BindMount, bytes] | None = None
        longest = -1
        for bind in self.binds:
            target = posixpath.normpath(os.fsencode("/" + bind.target.lstrip("/")))
            inside = path == target or path.startswith(target.rstrip(b"/") + b"/")
            # Of two at one place the later one hides the other.
            if inside and len(target) >= longest:
                found, longest = (bind, path[len(target) :].lstrip(b"/")), len(target)
        return found

    def holds_file(self, path: bytes) -> bool:
        """Whether a file is mounted at just this place."""
        found = self.covering(path)
        return found is not None and not found[1] and not os.path.isdir(found[0].source)


NOTHING: Final = Mounted()


def mounts_of(container: Container) -> Mounted:
    """What would be mounted in a container that isn't running; memory file systems are empty, and left out."""
    if container.state.status in (Status.RUNNING, Status.PAUSED):
        return NOTHING
    return Mounted(tuple(each for each in container.spec.isolation.mounts if isinstance(each, BindMount)))
