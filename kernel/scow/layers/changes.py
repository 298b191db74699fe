"""What a container has changed: its writable tree against the layers below, the same for every storage driver.

A name that is gone is said by itself, never by an opaque directory; what was written again as it was is no change. So
an overlay's upper directory and a plain copy of the image give one list, and one layer. But a file that got a new name
is there under its old one, too: a layer can't have a hard link to what it doesn't hold.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from scow.layers.attributes import wanted_xattrs
from scow.layers.lower import LowerTree
from scow.layers.names import OPAQUE, WHITEOUT
from scow.layers.stack import Opener, merged_view, open_directory
from scow.model.storage import Change, ChangeKind, Snapshot, Written
from scow.sys.paths import Resolve, open_beneath

_STRICT: Final = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS | Resolve.NO_XDEV
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_OPAQUE_ATTRIBUTE: Final = "trusted.overlay.opaque"
_PIECE: Final = 1 << 20


@contextmanager
def overlay_changes(layers: Sequence[Snapshot], scratch: Path, opener: Opener = open_directory) -> Iterator[Written]:
    """Of a container that `overlay_mounted` mounts, or has mounted at this moment. Raises ScowError, OSError."""
    lower = LowerTree(lambda: merged_view(layers, opener)) if layers else None
    with upper_changes(scratch / "upper", lower) as written:
        yield written


@contextmanager
def upper_changes(upper: Path, lower: LowerTree | None, *, dotted: bool = False) -> Iterator[Written]:
    """Of a writable layer above `lower`, which is closed in the end. Raises OSError.

    `dotted`: names that begin with `.wh.` are marks too, as fuse-overlayfs makes them.
    """
    with _written(upper, lower, layered=True, dotted=dotted) as written:
        yield written


@contextmanager
def tree_changes(below: Path | None, root: Path) -> Iterator[Written]:
    """Of a container whose whole tree is in `root`, a copy of `below`. Raises OSError."""
    with _written(root, LowerTree.of(below) if below is not None else None, layered=False) as written:
        yield written


@contextmanager
def _written(root: Path, lower: LowerTree | None, *, layered: bool, dotted: bool = False) -> Iterator[Written]:
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield Written(-1, ())  # it was never started
        return
    try:
        yield Written(fd, tuple(_Walk(fd, lower, layered=layered, dotted=dotted).run()))
    finally:
        os.close(fd)
        if lower is not None:
            lower.close()


class _Walk:
    def __init__(self, root: int, lower: LowerTree | None, *, layered: bool, dotted: bool) -> None:
        self._root = root
        self._lower = lower
        self._layered = layered
        self._dotted = dotted
        self._found: list[Change] = []
        #: Paths of directories, and whether the layers below have a directory there, too.
        self._ahead: list[tuple[bytes, bool]] = []
        #: Inodes with several names: those that are as they were, and which inodes have others.
        self._same: dict[tuple[int, int], list[bytes]] = {}
        self._linked: set[tuple[int, int]] = set()

    def run(self) -> list[Change]:
        if self._lower is not None:
            self._compare(b"", self._root, self._root)
        self._ahead.append((b"", self._lower is not None))
        while self._ahead:
            path, below = self._ahead.pop()
            with suppress(FileNotFoundError):  # a container that runs may remove it at any moment
                fd = open_beneath(self._root, path, _LIST, resolve=_STRICT)
                try:
                    self._directory(path, fd, below)
                finally:
                    os.close(fd)
        for inode in self._linked & self._same.keys():
            self._found += [Change(path, ChangeKind.MODIFIED) for path in self._same[inode]]
        return sorted(self._found, key=lambda change: change.path.split(b"/"))

    def _directory(self, path: bytes, fd: int, below: bool) -> None:
        names = {os.fsencode(name) for name in os.listdir(fd)}
        marks = {name for name in names if name.startswith(WHITEOUT)} if self._dotted else set()
        names -= marks
        for name in names:
            with suppress(FileNotFoundError):
                self._entry(_joined(path, name), fd, name, below)
        if below and (not self._layered or OPAQUE in marks or self._is_opaque(fd)):
            gone = set(self._names_below(path)) - names
        else:
            gone = {name for name in (mark.removeprefix(WHITEOUT) for mark in marks - {OPAQUE}) if name not in names}
            gone = {name for name in gone if below and self._is_below(_joined(path, name))}
        self._found += [Change(_joined(path, name), ChangeKind.DELETED) for name in gone]

    def _entry(self, path: bytes, directory: int, name: bytes, below: bool) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        old = self._lower.stat(path) if below and self._lower is not None else None
        if self._layered and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if old is not None:
                self._found.append(Change(path, ChangeKind.DELETED))
            return
        if stat.S_ISSOCK(status.st_mode):
            return
        is_directory = stat.S_ISDIR(status.st_mode)
        before = len(self._found)
        if old is None:
            self._found.append(Change(path, ChangeKind.ADDED))
        elif stat.S_IFMT(old.st_mode) != stat.S_IFMT(status.st_mode):
            self._found.append(Change(path, ChangeKind.MODIFIED))
        else:
            fd = os.open(name, _LOOK | os.O_CLOEXEC, dir_fd=directory)
            try:
                self._compare(path, fd, directory, name)
            finally:
                os.close(fd)
        if is_directory:
            self._ahead.append((path, old is not None and stat.S_ISDIR(old.st_mode)))
        elif status.st_nlink > 1:
            self._several(path, status, changed=len(self._found) > before)

    def _several(self, path: bytes, status: os.stat_result, *, changed: bool) -> None:
        """Take note of an inode that has more names than this one."""
        inode = status.st_dev, status.st_ino
        if changed:
            self._linked.add(inode)
        else:
            self._same.setdefault(inode, []).append(path)

    def _compare(self, path: bytes, new: int, directory: int, name: bytes = b".") -> None:
        """Note a change of what is of one kind in both trees."""
        assert self._lower is not None
        old = open_beneath(self._lower.fd, path, _LOOK, resolve=_STRICT)
        try:
            one, two = os.fstat(old), os.fstat(new)
            if _facts(one, old) != _facts(two, new):
                self._found.append(Change(path, ChangeKind.MODIFIED))
            elif one.st_mtime_ns != two.st_mtime_ns:
                self._found.append(Change(path, ChangeKind.MODIFIED, time_only=stat.S_ISDIR(two.st_mode)))
            elif stat.S_ISREG(two.st_mode) and two.st_size and not self._same_content(path, directory, name):
                self._found.append(Change(path, ChangeKind.MODIFIED))
        finally:
            os.close(old)

    def _same_content(self, path: bytes, directory: int, name: bytes) -> bool:
        assert self._lower is not None
        one = open_beneath(self._lower.fd, path, _READ, resolve=_STRICT)
        try:
            two = os.open(name, _READ | os.O_CLOEXEC, dir_fd=directory)
            try:
                while piece := os.read(one, _PIECE):
                    if piece != os.read(two, _PIECE):
                        return False
                return not os.read(two, 1)
            finally:
                os.close(two)
        finally:
            os.close(one)

    def _names_below(self, path: bytes) -> list[bytes]:
        assert self._lower is not None
        fd = self._lower.directory(path)
        try:
            return [os.fsencode(name) for name in os.listdir(fd)]
        finally:
            os.close(fd)

    def _is_below(self, path: bytes) -> bool:
        return self._lower is not None and self._lower.stat(path) is not None

    @staticmethod
    def _is_opaque(fd: int) -> bool:
        try:
            return os.getxattr(f"/proc/self/fd/{fd}", _OPAQUE_ATTRIBUTE) == b"y"
        except OSError:
            return False


def _joined(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _facts(status: os.stat_result, fd: int) -> tuple[object, ...]:
    """All but the time of what a descriptor (O_PATH) stands for."""
    mode = status.st_mode
    is_link = stat.S_ISLNK(mode)
    return (
        mode,
        status.st_uid,
        status.st_gid,
        status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0,
        status.st_size if stat.S_ISREG(mode) else 0,
        os.readlink(b"", dir_fd=fd) if is_link else b"",
        xattrs_of(fd),
    )


def xattrs_of(fd: int) -> dict[str, bytes] | None:
    """The attributes worth keeping of what a descriptor, possibly O_PATH, stands for. Raises OSError."""
    path = f"/proc/self/fd/{fd}"
    try:
        return wanted_xattrs({name: os.getxattr(path, name) for name in os.listxattr(path)})
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.EPERM):
            return None
        raise
