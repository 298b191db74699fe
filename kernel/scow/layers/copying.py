"""Copies of inodes and of whole trees, by descriptors: content shared where the file system can, holes kept."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from typing import Final

from scow.layers.attributes import Attributes, read_attributes, read_xattrs, write_attributes, write_attributes_at
from scow.sys.paths import Resolve, open_beneath

#: ioctl_ficlone(2).
_FICLONE: Final = 0x40049409
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LIST: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_STRICT: Final = Resolve.BENEATH | Resolve.NO_SYMLINKS | Resolve.NO_MAGICLINKS
_PIECE: Final = 1 << 30

#: Asked for each path of the source: whether it is to be copied.
Wanted = Callable[[bytes], bool]


def copy_node(
    source: int, name: bytes, target: int, new: bytes, status: os.stat_result, *, owners: bool = True
) -> None:
    """Copy what is no directory from one directory descriptor to another, with all its metadata. Raises OSError."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_file(source, name, target, new, owners=owners)
        return
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), new, dir_fd=target)
    else:
        os.mknod(new, status.st_mode, status.st_rdev, dir_fd=target)
    xattrs = read_xattrs(f"/proc/self/fd/{source}/{os.fsdecode(name)}")
    attributes = Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)
    write_attributes_at(target, new, attributes, is_link=kind == stat.S_IFLNK, owners=owners)


def _copy_file(source: int, name: bytes, target: int, new: bytes, *, owners: bool) -> None:
    old = os.open(name, _READ, dir_fd=source)
    try:
        status = os.fstat(old)
        file = os.open(new, _CREATE, 0o600, dir_fd=target)
        try:
            copy_content(old, file, status.st_size)
            write_attributes(file, read_attributes(status, old), owners=owners)
        finally:
            os.close(file)
    finally:
        os.close(old)


def copy_content(old: int, new: int, size: int) -> None:
    """Share the blocks, or else copy the data and leave the holes. Raises OSError."""
    if not size:
        return
    try:
        fcntl.ioctl(new, _FICLONE, old)
        return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
    os.ftruncate(new, size)
    at = 0
    while at < size:
        try:
            start = os.lseek(old, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = os.lseek(old, start, os.SEEK_HOLE)
        _copy_range(old, new, start, at)


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        try:
            count = os.copy_file_range(old, new, min(end - start, _PIECE), start, start)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            count = os.pwrite(new, os.pread(old, min(end - start, 1 << 20), start), start)
        if not count:
            return
        start += count


def copy_tree(
    source: int,
    target: int,
    *,
    merge: Wanted | None = None,
    owners: bool = True,
    check: Callable[[], None] | None = None,
) -> None:
    """Copy all that is in `source` into `target`, hard links kept. Raises OSError.

    With `merge`, `target` has things already, which stay as they are (directories are gone into), and of the source
    only what `merge` says yes to is copied. The metadata of `target` itself is the caller's. `check` is called for each
    directory and raises to stop.
    """
    _Copier(merge, owners, check).run(source, target)


class _Copier:
    def __init__(self, merge: Wanted | None, owners: bool, check: Callable[[], None] | None) -> None:
        self._merge = merge
        self._owners = owners
        self._check = check
        self._target = -1
        #: Where the first name of an inode with several went.
        self._links: dict[tuple[int, int], bytes] = {}
        #: Directories to go into, as paths from both roots: no recursion, and a bounded number of descriptors.
        self._ahead: list[bytes] = [b"."]
        self._made: list[tuple[bytes, Attributes]] = []

    def run(self, source: int, target: int) -> None:
        self._target = target
        while self._ahead:
            path = self._ahead.pop()
            if self._check is not None:
                self._check()
            old = open_beneath(source, path, _LIST, resolve=_STRICT)
            try:
                new = open_beneath(target, path, _LIST, resolve=_STRICT)
                try:
                    self._directory(path, old, new)
                finally:
                    os.close(new)
            finally:
                os.close(old)
        # Deepest last made, and times last of all: filling a directory changes them.
        for path, attributes in reversed(self._made):
            fd = open_beneath(target, path, _LIST, resolve=_STRICT)
            try:
                write_attributes(fd, attributes, owners=self._owners)
            finally:
                os.close(fd)

    def _directory(self, path: bytes, old: int, new: int) -> None:
        for text in os.listdir(old):
            name = os.fsencode(text)
            inner = name if path == b"." else path + b"/" + name
            if self._merge is not None and not self._merge(inner):
                continue
            status = os.stat(name, dir_fd=old, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                self._subdirectory(inner, old, new, name, status)
            else:
                self._leaf(inner, old, new, name, status)

    def _subdirectory(self, inner: bytes, old: int, new: int, name: bytes, status: os.stat_result) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=new)
        except FileExistsError:
            if self._merge is None or not stat.S_ISDIR(os.stat(name, dir_fd=new, follow_symlinks=False).st_mode):
                return
        else:
            fd = os.open(name, _LIST, dir_fd=old)
            try:
                self._made.append((inner, read_attributes(status, fd)))
            finally:
                os.close(fd)
        self._ahead.append(inner)

    def _leaf(self, inner: bytes, old: int, new: int, name: bytes, status: os.stat_result) -> None:
        key = (status.st_dev, status.st_ino)
        try:
            if status.st_nlink > 1 and (first := self._links.get(key)) is not None:
                os.link(first, name, src_dir_fd=self._target, dst_dir_fd=new, follow_symlinks=False)
                return
            copy_node(old, name, new, name, status, owners=self._owners)
            if status.st_nlink > 1:
                self._links[key] = inner
        except FileExistsError:
            if self._merge is None:
                raise
