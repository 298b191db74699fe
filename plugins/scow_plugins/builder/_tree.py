"""A tree of files that is copied from: a context where it lies, or a mounted stage. No link leads out of it.

Files are known by a digest of their content; an index remembers digests by inode, size and times, so that what didn't
change isn't read again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import msgspec

from scow.api import Invalid, NotFound
from scow.api.linux import Resolve, open_beneath
from scow_plugins.builder._ignore import Ignore

_IN_ROOT: Final = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS
_STRICT: Final = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_PIECE: Final = 1 << 20
#: A file that was written this short a time ago may be written again without its times telling, in nanoseconds.
_FRESH: Final = 2_000_000_000
#: Inode, size, times of content and inode in nanoseconds, digest, whether extended attributes count.
_Known: TypeAlias = tuple[int, int, int, int, str, bool]


class Node(NamedTuple):
    """One file, by its real path in the tree."""

    path: str
    status: os.stat_result
    link: str = ""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def is_regular(self) -> bool:
        return stat.S_ISREG(self.status.st_mode)


class Index:
    """Digests of files by path, in a file of the builder's own."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, _Known] = {}
        self._changed = False
        self._began = time.time_ns()
        if path is not None:
            try:
                self._known = msgspec.msgpack.decode(path.read_bytes(), type=dict[str, _Known])
                # Who collects garbage sees by that when it was last used.
                os.utime(path)
            except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
                self._known = {}

    def find(self, node: Node) -> tuple[str, bool] | None:
        """A file's digest, and whether it has extended attributes that count; None when it isn't as it was."""
        known = self._known.get(node.path)
        if known is not None and known[:4] == _identity(node.status):
            return known[4], known[5]
        return None

    def add(self, node: Node, digest: str, *, attributes: bool) -> None:
        """Note a file; one that was written just now isn't."""
        status = node.status
        if self._path is None or max(status.st_mtime_ns, status.st_ctime_ns) > self._began - _FRESH:
            return
        try:
            node.path.encode()
        except UnicodeEncodeError:
            return
        self._known[node.path] = (*_identity(status), digest, attributes)
        self._changed = True

    def save(self) -> None:
        """Write it down; what can't be written is found out again the next time."""
        if not self._changed or self._path is None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            temporary.touch(0o600)
            temporary.write_bytes(msgspec.msgpack.encode(self._known))
            temporary.replace(self._path)
        except OSError:
            return
        self._changed = False


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Tree:
    """The tree beneath a directory descriptor, which the caller keeps. Methods block; use it from one thread."""

    def __init__(self, root: int, name: str, *, ignore: Ignore | None = None, index: Index | None = None) -> None:
        self._root = root
        self.name = name
        self.ignore = ignore
        self._index = index or Index(None)
        self._base = os.readlink(f"/proc/self/fd/{root}").rstrip("/")
        self._directory: tuple[str, int] | None = None
        #: Called between pieces of work; raises to stop.
        self.check: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Let go of what is kept open, and write the index down."""
        if self._directory is not None:
            os.close(self._directory[1])
            self._directory = None
        self._index.save()

    def ignores(self, path: str) -> bool:
        return self.ignore is not None and path != "" and self.ignore.ignores(path)

    def find(self, path: str) -> Node:
        """What a path leads to, over links, which stay within the tree. Raises NotFound."""
        try:
            fd = open_beneath(self._root, path, os.O_PATH, resolve=_IN_ROOT)
        except OSError:
            raise self._missing(path) from None
        try:
            real = os.readlink(f"/proc/self/fd/{fd}")
            if not (real + "/").startswith(self._base + "/"):
                raise self._missing(path)
            return Node(real[len(self._base) :].strip("/"), os.fstat(fd))
        finally:
            os.close(fd)

    def _missing(self, path: str) -> NotFound:
        """What isn't there, although one may see it: links end at the tree's root."""
        hint = None
        at = ""
        for part in path.split("/"):
            at = f"{at}/{part}".strip("/")
            node = self.lstat(at) if at else None
            if node is not None and node.link:
                hint = f"{at} is a link to {node.link}, and links never lead out of {self.name}"
                break
        return NotFound(f"{path!r} is not in {self.name}", hint=hint)

    def lstat(self, path: str) -> Node | None:
        """What is at a real path itself; None when there is nothing."""
        try:
            fd = open_beneath(self._root, path, os.O_PATH | os.O_NOFOLLOW, resolve=_STRICT)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            link = os.fsdecode(os.readlink(b"", dir_fd=fd)) if stat.S_ISLNK(status.st_mode) else ""
            return Node(path, status, link)
        finally:
            os.close(fd)

    def walk(self, top: str) -> Iterator[Node]:
        """All beneath a directory, sorted, a directory before what is in it; what is ignored is left out."""
        fd = open_beneath(self._root, top, _DIRECTORY, resolve=_STRICT)
        try:
            yield from self._walk(fd, top)
        finally:
            os.close(fd)

    def _walk(self, fd: int, top: str) -> Iterator[Node]:
        self.check()
        with os.scandir(fd) as found:
            entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
        prefix = top + "/" if top else ""
        for entry in entries:
            path = prefix + entry.name
            is_directory = entry.is_dir(follow_symlinks=False)
            ignored = self.ignore is not None and self.ignore.ignores(path)
            if ignored and (not is_directory or self.ignore is None or self.ignore.skips_tree(path)):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                link = os.readlink(entry.name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else ""
            except FileNotFoundError:
                continue
            if not is_directory:
                yield Node(path, status, link)
                continue
            inner = os.open(entry.name, _DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            try:
                if not ignored:
                    yield Node(path, status)
                    yield from self._walk(inner, path)
                else:
                    # It is there only for what was taken back.
                    beneath = self._walk(inner, path)
                    first = next(beneath, None)
                    if first is not None:
                        yield Node(path, status)
                        yield first
                        yield from beneath
            finally:
                os.close(inner)

    def remembers(self, path: str) -> bool:
        """Whether a real path is a regular file whose content needn't be read."""
        node = self.lstat(path)
        return node is not None and node.is_regular and self._index.find(node) is not None

    def open(self, path: str) -> int:
        """A regular file, for reading, at its real path. Raises OSError."""
        directory, _, name = path.rpartition("/")
        if self._directory is None or self._directory[0] != directory:
            if self._directory is not None:
                os.close(self._directory[1])
                self._directory = None
            fd = open_beneath(self._root, directory, _DIRECTORY, resolve=_STRICT)
            self._directory = (directory, fd)
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._directory[1])

    def known(self, node: Node) -> tuple[str, dict[str, bytes] | None]:
        """A regular file's content as a digest, and its extended attributes. Raises Invalid when it can't be read."""
        known = self._index.find(node)
        if known is not None:
            return known[0], self.xattrs(node) if known[1] else None
        found = hashlib.sha256()
        for piece in self.content(node):
            found.update(piece)
        digest, attributes = found.hexdigest(), self.xattrs(node)
        self._index.add(node, digest, attributes=attributes is not None)
        return digest, attributes

    def content(self, node: Node) -> Iterator[bytes]:
        """A regular file's bytes. Raises Invalid when it is not what it was."""
        try:
            fd = self.open(node.path)
        except OSError as error:
            raise Invalid(f"{node.path!r} in {self.name} can't be read: {error.strerror}") from None
        try:
            left = node.status.st_size
            while left:
                self.check()
                piece = os.read(fd, min(left, _PIECE))
                if not piece:
                    break
                left -= len(piece)
                yield piece
            if left or _identity(os.fstat(fd)) != _identity(node.status):
                raise Invalid(
                    f"{node.path!r} in {self.name} was changed while it was read",
                    hint="build again when nobody writes there",
                )
        finally:
            os.close(fd)

    def xattrs(self, node: Node) -> dict[str, bytes] | None:
        """Capabilities and what a user has attached; None when there is nothing (most files)."""
        place = f"/proc/self/fd/{self._root}/{node.path}"
        try:
            names = os.listxattr(place, follow_symlinks=False)
            return {
                name: os.getxattr(place, name, follow_symlinks=False)
                for name in names
                if name == "security.capability" or name.startswith("user.")
            } or None
        except OSError:
            return None
