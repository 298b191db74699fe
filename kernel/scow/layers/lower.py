"""What lies below a layer: the merged tree of its parents, opened only when a layer needs to look."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scow.layers.attributes import Attributes, read_attributes
from scow.sys.paths import Resolve, open_beneath

_STRICT: Final = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW


class LowerTree:
    """A read-only tree of which `opener` gives a directory descriptor at first use; `close` closes it.

    Paths are real ones: no component of them is followed when it is a link.
    """

    def __init__(self, opener: Callable[[], int]) -> None:
        self._opener = opener
        self._fd: int | None = None

    @classmethod
    def of(cls, path: Path) -> LowerTree:
        """A directory that is the whole tree."""
        return cls(lambda: os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    @property
    def fd(self) -> int:
        """The root's descriptor."""
        if self._fd is None:
            self._fd = self._opener()
        return self._fd

    def close(self) -> None:
        """Give the descriptor back."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def stat(self, path: bytes) -> os.stat_result | None:
        """The inode at `path` itself; None when there is none. Raises OSError."""
        try:
            fd = open_beneath(self.fd, path, _LOOK, resolve=_STRICT)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def readlink(self, path: bytes) -> bytes:
        """A link's target. Raises OSError."""
        fd = open_beneath(self.fd, path, _LOOK, resolve=_STRICT)
        try:
            return os.readlink(b"", dir_fd=fd)
        finally:
            os.close(fd)

    def directory(self, path: bytes) -> int:
        """A new descriptor of a directory, to be closed by the caller. Raises OSError."""
        return open_beneath(self.fd, path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, resolve=_STRICT)

    def names(self) -> list[bytes]:
        """What is in the root. Raises OSError."""
        fd = self.directory(b"")
        try:
            return [os.fsencode(name) for name in os.listdir(fd)]
        finally:
            os.close(fd)

    def look(self, path: bytes) -> tuple[os.stat_result, Attributes | None] | None:
        """The inode at `path` itself, with its metadata if it is a directory; None when there is none.

        Raises OSError where a directory's attributes can't be read.
        """
        try:
            fd = open_beneath(self.fd, path, _LOOK, resolve=_STRICT)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            # Attributes can't be read of a descriptor that is only a place: the dot is the directory itself.
            there = read_attributes(status, f"/proc/self/fd/{fd}/.") if stat.S_ISDIR(status.st_mode) else None
            return status, there
        finally:
            os.close(fd)

    def attributes(self, path: bytes) -> Attributes:
        """A directory's metadata. Raises OSError."""
        fd = self.directory(path)
        try:
            return read_attributes(os.fstat(fd), fd)
        finally:
            os.close(fd)
