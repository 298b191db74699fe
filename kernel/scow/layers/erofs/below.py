"""What lies below an image that is being written: the view of it, and its files, with their content and holes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from scow.layers.attributes import Attributes, read_attributes, read_xattrs
from scow.layers.lower import LowerTree
from scow.layers.names import split
from scow.layers.stack import Opener, merged_view
from scow.model.storage import Snapshot

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE: Final = 1 << 20


class LowerStack(LowerTree):
    """The merged view of `layers` (lowest first). The root's own metadata is had without mounting them all."""

    def __init__(self, layers: Sequence[Snapshot], opener: Opener) -> None:
        super().__init__(lambda: merged_view(layers, opener))
        self._top = layers[-1]
        self._open_layer = opener

    def attributes(self, path: bytes) -> Attributes:
        """A directory's metadata; the merged root has that of the topmost layer. Raises OSError."""
        if path:
            return super().attributes(path)
        with self._open_layer(self._top) as layer:
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=layer)
            try:
                return read_attributes(os.fstat(fd), fd)
            finally:
                os.close(fd)


@dataclass(frozen=True, slots=True)
class BelowFile:
    """What is no directory. `kind` is the S_IFMT part of the mode; `pieces` are the stored parts of a sparse file."""

    attributes: Attributes
    kind: int
    size: int
    device: int
    pieces: tuple[tuple[int, int], ...] | None
    _fd: int
    _target: bytes

    def data(self) -> Iterator[bytes]:
        """The stored bytes, or a link's target. Raises OSError."""
        if self._fd < 0:
            yield self._target
            return
        for offset, length in self.pieces or ((0, self.size),):
            end = offset + length
            while offset < end:
                piece = os.pread(self._fd, min(_PIECE, end - offset), offset)
                if not piece:
                    raise OSError(errno.EIO, "a file of a lower layer is shorter than it says")
                offset += len(piece)
                yield piece


@contextmanager
def open_below(lower: LowerTree, path: bytes, status: os.stat_result) -> Iterator[BelowFile]:
    """The file at the real path `path`, of which `status` is known. Raises OSError."""
    directory, name = split(path)
    parent = lower.directory(directory)
    fd = -1
    try:
        kind = stat.S_IFMT(status.st_mode)
        pieces = None
        if kind == stat.S_IFREG:
            fd = os.open(name, _READ, dir_fd=parent)
            pieces = _pieces(fd, status.st_size)
        target = os.readlink(name, dir_fd=parent) if kind == stat.S_IFLNK else b""
        xattrs = read_xattrs(fd if fd >= 0 else f"/proc/self/fd/{parent}/{os.fsdecode(name)}")
        attributes = Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)
        size = status.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0
        yield BelowFile(attributes, kind, size, status.st_rdev, pieces, fd, target)
    finally:
        os.close(parent)
        if fd >= 0:
            os.close(fd)


def _pieces(fd: int, size: int) -> tuple[tuple[int, int], ...] | None:
    """Where a file has data; None when it has no holes."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        found.append((start, at - start))
    return None if found == [(0, size)] or not size else tuple(found)
