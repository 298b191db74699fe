"""The tree that a layer is written into: finds and makes directories beneath its root, remembers what the layer hides.

Nothing here joins paths for the kernel to follow: a directory is reached by openat2(2) that refuses links, and links
within an image are followed here, component by component, ending at the root, over this tree and the one below.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from scow.errors import Corrupt
from scow.layers.attributes import UNSAID, Attributes
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.names import show, split
from scow.sys.paths import Resolve, open_beneath

_STRICT: Final = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
_OPEN: Final = os.O_PATH | os.O_DIRECTORY
#: Linux' own limit of links in one path (path_resolution(7)).
_LINKS_MAX: Final = 40
#: What a path may come by, its links' targets included: twice as much as fits one path.
STEPS_MAX: Final = 4096
#: Directory descriptors kept open; archives go from directory to directory.
_FDS_MAX: Final = 64


class NoDirectory(NotADirectoryError):
    """Something lies where an archive has things beneath; the text says what."""


class Tree:
    """A directory tree under construction in `root`, a descriptor that the caller keeps.

    Paths are relative to the root and real (no links in them), but for `directory`, which makes real ones of what an
    archive says. `hidden` and `opaque` gather the layer's whiteouts: only what lies below is meant by them, so they say
    nothing about this tree, and their order doesn't matter.
    """

    def __init__(self, root: int, lower: LowerTree | None, limits: Limits | None = None) -> None:
        self.root = root
        self.lower = lower
        self.hidden: set[bytes] = set()
        self.opaque: set[bytes] = set()
        #: Directories' metadata, to be written when nothing changes in them any more.
        self.pending: dict[bytes, Attributes] = {}
        self._limits = limits or Limits()
        #: The directories that are there, each with those directly in it, and the names that are hidden in it.
        self._known: dict[bytes, list[bytes]] = {b"": []}
        self._hiding: dict[bytes, list[bytes]] = {}
        self._paths = 0
        self._fds: dict[bytes, int] = {}

    def close(self) -> None:
        """Close all descriptors but the root's."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def trim(self) -> None:
        """Close descriptors beyond the limit; those that were given out before are not valid any more."""
        while len(self._fds) > _FDS_MAX:
            os.close(self._fds.pop(next(iter(self._fds))))

    def directory(self, path: bytes) -> tuple[bytes, int]:
        """The directory that an archive calls `path`, made where it is missing, with its real path.

        A missing one that exists below takes over its metadata, as if it were copied up. The descriptor (O_PATH) is
        valid until `trim`. Raises NoDirectory, Corrupt, OSError.
        """
        fd = self._fds.get(path)
        if fd is not None:
            return path, fd
        real = path if path in self._known else self._walk(path)
        fd = self._fds.get(real)
        if fd is None:
            fd = self._fds[real] = self._open(real)
        return real, fd

    def make(self, path: bytes, fd: int, name: bytes, attributes: Attributes | None) -> None:
        """Make the directory `path` (`name` in `fd`). Raises OSError (FileExistsError)."""
        os.mkdir(name, 0o755, dir_fd=fd)
        self.adopt(path, attributes)

    def adopt(self, path: bytes, attributes: Attributes | None) -> None:
        """Take note of a directory that is there, and of the metadata that it shall have in the end."""
        self._note(path)
        if attributes is not None:
            self.pending[path] = attributes

    def hide(self, directory: bytes, name: bytes) -> None:
        """A whiteout of `name` in a directory that is there."""
        path = directory + b"/" + name if directory else name
        if path not in self.hidden:
            self.hidden.add(path)
            self._hiding.setdefault(directory, []).append(path)

    def forget(self, path: bytes) -> None:
        """What was there was removed; if it was a directory, with all that was in it."""
        ahead = [path]
        while ahead:
            gone = ahead.pop()
            if gone not in self._known:
                continue
            ahead += self._known.pop(gone)
            self._paths -= len(gone)
            self.pending.pop(gone, None)
            self.opaque.discard(gone)
            self.hidden.difference_update(self._hiding.pop(gone, ()))
            if (fd := self._fds.pop(gone, None)) is not None:
                os.close(fd)

    def stat_below(self, path: bytes) -> os.stat_result | None:
        """What the layers below have at `path`, unless this layer hides it."""
        if self.lower is None or self.covers(path):
            return None
        return self.lower.stat(path)

    def covers(self, path: bytes) -> bool:
        """Whether this layer's whiteouts hide what lies below at `path`."""
        if not self.hidden and not self.opaque:
            return False
        if path in self.hidden:
            return True
        while path:
            path = split(path)[0]
            if path in self.opaque or path in self.hidden:
                return True
        return False

    def _note(self, path: bytes) -> None:
        """A directory is there. Raises Exhausted."""
        if path in self._known:
            return
        self._paths += len(path)
        self._limits.check_paths(self._paths)
        self._known[path] = []
        # One that was forgotten and made again stands there twice, which does no harm.
        self._known.setdefault(split(path)[0], []).append(path)

    def _open(self, path: bytes) -> int:
        return open_beneath(self.root, path, _OPEN, resolve=_STRICT)

    def _walk(self, path: bytes) -> bytes:
        """Follow `path` from the root, over links, and make what is missing; gives the real path."""
        ahead = path.split(b"/")[::-1]
        here = b""
        links = steps = 0
        while ahead:
            name = ahead.pop()
            steps += 1
            if steps > STEPS_MAX:
                raise Corrupt(f"layer's path {show(path)} goes over more than {STEPS_MAX} directories and links")
            if name in (b"", b"."):
                continue
            if name == b"..":
                here = split(here)[0]
                continue
            step = here + b"/" + name if here else name
            target = None if step in self._known else self._enter(here, name, step)
            if target is None:
                here = step
                continue
            links += 1
            if links > _LINKS_MAX:
                raise Corrupt(f"layer's path {show(path)} goes over more than {_LINKS_MAX} links")
            here = b"" if target.startswith(b"/") else here
            ahead.extend(target.split(b"/")[::-1])
        return here

    def _enter(self, here: bytes, name: bytes, step: bytes) -> bytes | None:
        """One component: None when it is a directory (now), else the target of the link that it is."""
        fd = self._open(here)
        try:
            try:
                mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return self._imply(fd, name, step)
            if stat.S_ISLNK(mode):
                return os.readlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        if not stat.S_ISDIR(mode):
            raise NoDirectory(f"{show(step)}, which is no directory")
        self._note(step)
        return None

    def _imply(self, fd: int, name: bytes, step: bytes) -> bytes | None:
        """A directory that the archive doesn't mention, but uses."""
        below = self.stat_below(step)
        if below is None:
            self.make(step, fd, name, UNSAID)
            return None
        assert self.lower is not None
        if stat.S_ISLNK(below.st_mode):
            return self.lower.readlink(step)
        if not stat.S_ISDIR(below.st_mode):
            raise NoDirectory(f"{show(step)}, which is no directory in the layers below")
        self.make(step, fd, name, self.lower.attributes(step))
        return None
