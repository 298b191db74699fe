"""Paths beneath a root that strangers filled: openat2(2) (Linux 5.6), so that no link leads out."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from enum import IntFlag
from typing import Final

from scow.sys.libc import call, syscall

__all__ = ["Resolve", "is_kernels", "open_beneath", "read_beneath"]

_OPENAT2: Final = 437
#: What the kernel shows of itself (statfs(2), linux/magic.h): proc, sysfs, cgroup of versions 1 and 2, debugfs,
#: tracefs, securityfs, configfs, bpf.
_KERNELS: Final = frozenset(
    (0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x64626720, 0x74726163, 0x73636673, 0x62656570, 0xCAFE4A11)
)
_STATFS_SIZE: Final = 120


class Resolve(IntFlag):
    """RESOLVE_* flags of openat2(2)."""

    NO_XDEV = 0x01
    NO_MAGICLINKS = 0x02
    NO_SYMLINKS = 0x04
    BENEATH = 0x08
    IN_ROOT = 0x10


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(
    root: int,
    path: str | bytes,
    flags: int,
    mode: int = 0,
    resolve: int = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS,
) -> int:
    """Open `path` as if the directory `root` were `/` (links and `..` end there). Raises OSError.

    O_CLOEXEC is always set. `mode` counts only with O_CREAT or O_TMPFILE, as the kernel demands.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path) or b"."
    while True:
        try:
            return syscall(_OPENAT2, root, name, ctypes.byref(how), ctypes.sizeof(how))
        except OSError as error:
            # EAGAIN: something was renamed meanwhile, and the kernel couldn't be sure of `..`.
            if error.errno not in (errno.EAGAIN, errno.EINTR):
                raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None


def is_kernels(fd: int) -> bool:
    """Whether what is open lies in /proc, /sys or another file system whose files are the kernel. Raises OSError."""
    found = ctypes.create_string_buffer(_STATFS_SIZE)
    call("fstatfs", fd, found)
    return int.from_bytes(found.raw[:8], sys.byteorder) in _KERNELS  # f_type comes first


def read_beneath(root: int, path: str, limit: int = 4 * 1024 * 1024) -> bytes:
    """A regular file's content, at most `limit` bytes. Raises OSError (EINVAL for what is no regular file)."""
    # O_NONBLOCK: a FIFO in the file's place must not make us wait.
    fd = open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        chunks = []
        while limit > 0 and (chunk := os.read(fd, min(limit, 1 << 20))):
            chunks.append(chunk)
            limit -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)
