"""Entries of a layer's tar archive become files beneath a directory descriptor.

One handler for each kind of entry, in a table. Of two entries with one name the last wins, whatever their kinds. What a
layer hides is gathered in the tree, and is for the storage driver to express.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from scow.errors import Conflict, Corrupt, Denied, Exhausted, Internal, ScowError
from scow.layers import names
from scow.layers.attributes import Attributes, wanted_xattrs, write_attributes, write_attributes_at, write_xattrs
from scow.layers.copying import copy_node
from scow.layers.limits import Limits
from scow.layers.removal import remove_tree
from scow.layers.tar import Entry
from scow.layers.tree import NoDirectory, Tree

Data = Callable[[], Iterator[memoryview]]

_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES: Final = {b"3": stat.S_IFCHR, b"4": stat.S_IFBLK, b"6": stat.S_IFIFO}
_TARGET_MAX: Final = 4095
_NO_OWNER: Final = (1 << 32) - 1
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
#: What lies where files come into a container: /proc, a mount that is read-only or in use.
_IN_THE_WAY: Final = frozenset({errno.ENOENT, errno.EROFS, errno.EBUSY, errno.ETXTBSY, errno.EISDIR, errno.EEXIST,
                                errno.ENXIO, errno.EOPNOTSUPP})  # fmt: skip
_ODD: Final = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EXDEV, errno.EMLINK})


class Extractor:
    """Writes entries into `tree`. `owners` False leaves them all to the caller's user (tests without root)."""

    def __init__(self, tree: Tree, limits: Limits, *, owners: bool = True) -> None:
        self.tree = tree
        #: Bytes that the layer takes on disk, about: whole pages, without what the file system adds.
        self.usage = 0
        self._limits = limits
        self._owners = owners
        self._entries = 0
        self._written = 0
        self._umask = _umask()
        self._me = (os.geteuid(), os.getegid())

    def add(self, entry: Entry, data: Data) -> None:
        """Write one entry; `data` gives its stored bytes. Raises Corrupt, Exhausted, Denied."""
        self._entries += 1
        self._limits.check_entries(self._entries)
        path = names.beneath(entry.name)
        handler = _HANDLERS.get(entry.kind)
        if handler is None:
            raise Corrupt(f"layer contains {names.show(entry.name)} of the unknown kind {entry.kind!a}")
        try:
            self._place(handler, entry, path, data)
        except OSError as error:
            raise translated(error, entry.name) from error

    def drop_links(self) -> None:
        """Take away what was kept for hard links alone; called when all entries are there. Raises like `add`."""
        try:
            remove_tree(self.tree.root, names.AUFS_LINKS)
        except OSError as error:
            raise translated(error, names.AUFS_LINKS) from error
        self.tree.forget(names.AUFS_LINKS)

    def seal(self) -> None:
        """Write the directories' own metadata; after this nothing may change in them. Raises like `add`."""
        for path, attributes in self.tree.pending.items():
            self.tree.trim()
            _, handle = self.tree.directory(path)
            try:
                fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
                try:
                    write_attributes(fd, attributes, owners=self._owners)
                finally:
                    os.close(fd)
            except OSError as error:
                raise translated(error, path) from error
        self.tree.pending.clear()

    def _place(self, handler: Handler, entry: Entry, path: bytes, data: Data) -> None:
        directory, name = names.split(path)
        tree = self.tree
        if b".wh." in path and not names.is_linked(directory, name, entry.kind) and self._is_whiteout(directory, name):
            return
        if not path:
            if entry.kind != b"5":
                raise Corrupt("layer wants to replace the root directory by something else")
            tree.adopt(b"", _attributes(entry))
            return
        tree.trim()
        real, fd = tree.directory(directory)
        handler(self, entry, real + b"/" + name if real else name, fd, name, data)

    def _is_whiteout(self, directory: bytes, name: bytes) -> bool:
        """Take note of a whiteout. Raises Corrupt for one that makes no sense."""
        for part in directory.split(b"/"):
            if part.startswith(names.AUFS):
                return True
            if part.startswith(names.WHITEOUT):
                raise Corrupt(f"layer has something beneath the whiteout {names.show(part)}")
        if not name.startswith(names.WHITEOUT):
            return False
        if name == names.OPAQUE or not name.startswith(names.AUFS):
            hidden = b"" if name == names.OPAQUE else names.hidden_name(name)
            try:
                self._hide(directory, hidden)
            except NoDirectory:
                pass  # `umoci repack` says of a directory that became a file that its files are gone, too
        return True

    def _hide(self, directory: bytes, name: bytes) -> None:
        """Hide a name, or with an empty one all that lies below in the directory."""
        tree = self.tree
        tree.trim()
        real = tree.directory(directory)[0]
        if name:
            tree.hide(real, name)
        else:
            tree.opaque.add(real)

    def _directory(self, entry: Entry, path: bytes, fd: int, name: bytes, data: Data) -> None:
        try:
            self.tree.make(path, fd, name, _attributes(entry))
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                self.tree.adopt(path, _attributes(entry))
                return
            os.unlink(name, dir_fd=fd)
            self.tree.make(path, fd, name, _attributes(entry))
            # What was a file for a moment hid the directory below.
            self.tree.opaque.add(path)
        self.usage += 4096

    def _regular(self, entry: Entry, path: bytes, fd: int, name: bytes, data: Data) -> None:
        stored = entry.size if entry.sparse is None else sum(length for _, length in entry.sparse)
        check_owner(entry)
        self._written += stored
        self._limits.check_bytes(self._written)
        self.usage += (stored + 4095) & ~4095
        try:
            file = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=fd)
        except FileExistsError:
            self._remove(path, fd, name)
            file = os.open(name, _CREATE, entry.mode & 0o777, dir_fd=fd)
        try:
            if entry.sparse is None:
                for piece in data():
                    _write(file, piece)
            else:
                _write_sparse(file, entry, data)
            self._finish(file, entry)
        finally:
            os.close(file)

    def _finish(self, file: int, entry: Entry) -> None:
        """A regular file's metadata: the calls that would change nothing are left out."""
        if self._owners and (entry.uid, entry.gid) != self._me:
            os.fchown(file, entry.uid, entry.gid)
        if entry.xattrs and (xattrs := wanted_xattrs(entry.xattrs)):
            write_xattrs(file, xattrs)
        mode = entry.mode & 0o7777
        if mode & (self._umask | 0o7000):
            os.fchmod(file, mode)
        os.utime(file, ns=(entry.mtime, entry.mtime))

    def _symlink(self, entry: Entry, path: bytes, fd: int, name: bytes, data: Data) -> None:
        check_target(entry)
        self._make(path, fd, name, lambda: os.symlink(entry.link, name, dir_fd=fd))
        write_attributes_at(fd, name, _attributes(entry), is_link=True, owners=self._owners)

    def _node(self, entry: Entry, path: bytes, fd: int, name: bytes, data: Data) -> None:
        mode = _NODES[entry.kind] | (entry.mode & 0o777)
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise Corrupt(f"layer's device {names.show(entry.name)} has the impossible number {major}:{minor}")
        self._make(path, fd, name, lambda: os.mknod(name, mode, os.makedev(major, minor), dir_fd=fd))
        write_attributes_at(fd, name, _attributes(entry), is_link=False, owners=self._owners)

    def _hardlink(self, entry: Entry, path: bytes, fd: int, name: bytes, data: Data) -> None:
        directory, target = names.split(names.beneath(entry.link))
        real, source_fd = self.tree.directory(directory)
        source = real + b"/" + target if real else target
        if not target or names.is_within(source, path):
            raise Corrupt(f"layer's hard link {names.show(entry.name)} leads to {names.show(entry.link)}")
        self._bring_up(entry, source, source_fd, target)
        self._make(
            path, fd, name, lambda: os.link(target, name, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
        )

    def _bring_up(self, entry: Entry, source: bytes, fd: int, name: bytes) -> None:
        """See that a hard link's target is in this tree: one that lies below is copied up."""
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            below = self.tree.stat_below(source)
            if below is None:
                raise Corrupt(
                    f"layer's hard link {names.show(entry.name)} leads to {names.show(entry.link)}, which isn't there"
                ) from None
            status = below
            if not stat.S_ISDIR(status.st_mode):
                self._copy_up(source, fd, name, status)
        if stat.S_ISDIR(status.st_mode):
            raise Corrupt(f"layer's hard link {names.show(entry.name)} leads to a directory")

    def _copy_up(self, source: bytes, fd: int, name: bytes, status: os.stat_result) -> None:
        self._written += status.st_size
        self._limits.check_bytes(self._written)
        self.usage += status.st_size
        assert self.tree.lower is not None
        directory = self.tree.lower.directory(names.split(source)[0])
        try:
            copy_node(directory, name, fd, name, status, owners=self._owners)
        finally:
            os.close(directory)

    def _make(self, path: bytes, fd: int, name: bytes, act: Callable[[], None]) -> None:
        try:
            act()
        except FileExistsError:
            self._remove(path, fd, name)
            act()

    def _remove(self, path: bytes, fd: int, name: bytes) -> None:
        """An earlier entry of the same name makes way."""
        remove_tree(fd, name)
        self.tree.forget(path)


Handler = Callable[[Extractor, Entry, bytes, int, bytes, Data], None]

_HANDLERS: Final[dict[bytes, Handler]] = {
    b"0": Extractor._regular,
    b"1": Extractor._hardlink,
    b"2": Extractor._symlink,
    b"3": Extractor._node,
    b"4": Extractor._node,
    b"5": Extractor._directory,
    b"6": Extractor._node,
}


def translated(error: OSError, name: bytes) -> ScowError:
    """What the kernel refused, in words of what the caller should do."""
    if isinstance(error, NoDirectory):
        return Corrupt(f"layer has something beneath {error}")
    if error.errno in _FULL:
        return Exhausted(
            f"no room to unpack {names.show(name)}: {error.strerror}",
            hint="make room where scow keeps its state (`scow info` says where), then try again: what came is kept",
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return Denied(f"can't make {names.show(name)}: {error.strerror}", hint="unpacking needs root")
    if error.errno in _ODD:
        return Corrupt(f"layer's entry {names.show(name)} can't be made: {error.strerror}")
    if error.errno in _IN_THE_WAY:
        return Conflict(
            f"{names.show(name)} can't be made there: {error.strerror}", hint="choose a place that can be written to"
        )
    return Internal(f"unpacking {names.show(name)} failed: {error.strerror or error}")


def check_owner(entry: Entry) -> None:
    """Raises Corrupt for numbers that are no owner's; the last one means none (chown(2))."""
    if not (0 <= entry.uid < _NO_OWNER and 0 <= entry.gid < _NO_OWNER):
        raise Corrupt(f"layer's {names.show(entry.name)} has the impossible owner {entry.uid}:{entry.gid}")


def check_target(entry: Entry) -> None:
    """Raises Corrupt for what no symbolic link can lead to (symlink(2))."""
    if not 0 < len(entry.link) <= _TARGET_MAX:
        raise Corrupt(f"layer's link {names.show(entry.name)} has a target of {len(entry.link)} bytes")


def _attributes(entry: Entry) -> Attributes:
    check_owner(entry)
    return Attributes(entry.mode & 0o7777, entry.uid, entry.gid, entry.mtime, wanted_xattrs(entry.xattrs))


def _write(file: int, piece: memoryview) -> None:
    while (written := os.write(file, piece)) < len(piece):
        piece = piece[written:]


def _write_sparse(file: int, entry: Entry, data: Data) -> None:
    """Stored bytes go where the map says; the rest stays a hole."""
    os.ftruncate(file, entry.size)
    pieces = iter(entry.sparse or ())
    offset = left = 0
    for stored in data():
        while stored:
            if not left:
                offset, left = next(pieces)
            count = os.pwrite(file, stored[:left], offset)
            offset, left, stored = offset + count, left - count, stored[count:]


def _umask() -> int:
    """The process's umask, without changing it for a moment, as os.umask would for all threads."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o777
