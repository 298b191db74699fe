"""Mounts: mount(2), umount2(2), and the API of Linux 5.2 by descriptors (fsopen, fsmount, open_tree, move_mount)."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from enum import IntFlag
from typing import Final

from scow.sys.libc import call, syscall

__all__ = [
    "AttrFlag",
    "MountFlag",
    "attach_mount",
    "clone_mount",
    "create_mount",
    "mount",
    "mount_setattr",
    "pivot_root",
    "umount",
]

_OPEN_TREE: Final = 428
_MOVE_MOUNT: Final = 429
_FSOPEN: Final = 430
_FSCONFIG: Final = 431
_FSMOUNT: Final = 432
_MOUNT_SETATTR: Final = 442
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "loongarch64": 41}

_FSOPEN_CLOEXEC: Final = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_FSMOUNT_CLOEXEC: Final = 1
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_AT_RECURSIVE, _AT_EMPTY_PATH, _AT_FDCWD = 0x8000, 0x1000, -100
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x4, 0x40


class MountFlag(IntFlag):
    """Flags of mount(2)."""

    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    NOATIME = 1024
    BIND = 4096
    MOVE = 8192
    REC = 16384
    UNBINDABLE = 1 << 17
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
    RELATIME = 1 << 21
    STRICTATIME = 1 << 24


class AttrFlag(IntFlag):
    """Attributes of fsmount(2) and mount_setattr(2)."""

    RDONLY = 0x1
    NOSUID = 0x2
    NODEV = 0x4
    NOEXEC = 0x8
    NOATIME = 0x10
    STRICTATIME = 0x20
    NODIRATIME = 0x80
    NOSYMFOLLOW = 0x200000


def mount(source: str | None, target: str, fstype: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError with the target as its file name."""
    try:
        call("mount", _path(source), _path(target), _path(fstype), flags, _path(data))
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None


def umount(target: str, *, detach: bool = False) -> None:
    """umount2(2), never following a link; `detach` is MNT_DETACH. Raises OSError."""
    try:
        call("umount2", os.fsencode(target), 8 | (2 if detach else 0))
    except OSError as error:
        raise OSError(error.errno, error.strerror, target) from None


def create_mount(fstype: str, options: Iterable[tuple[str, str | None]], attributes: int = 0) -> int:
    """A new detached mount: fsopen, fsconfig for each option (value None: a flag), fsmount.

    Gives a close-on-exec directory descriptor. Raises OSError; its strerror is what the file system itself says
    where it says something (the log of the fsopen descriptor), which is the best message there is.
    """
    context = syscall(_FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC)
    try:
        try:
            for key, value in options:
                command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
                syscall(_FSCONFIG, context, command, key.encode(), _path(value), 0)
            syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
            return syscall(_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
        except OSError as error:
            raise OSError(error.errno, _kernel_log(context) or error.strerror, fstype) from None
    finally:
        os.close(context)


def _kernel_log(context: int) -> str:
    """What a file system wrote about its failure: lines of `e message`, `w …`, `i …`."""
    lines: list[str] = []
    while True:
        try:
            line = os.read(context, 1024)
        except OSError as error:
            if error.errno == errno.EINTR:
                continue
            return "; ".join(lines)
        text = line.decode(errors="replace").strip()
        if text[:2] == "e ":
            lines.append(text[2:])


def clone_mount(path: str, *, recursive: bool = False, dir_fd: int = _AT_FDCWD) -> int:
    """A detached copy of the mount at `path` (open_tree with OPEN_TREE_CLONE); '' means `dir_fd` itself.

    Gives a close-on-exec descriptor. Raises OSError.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    if not path:
        flags |= _AT_EMPTY_PATH
    return syscall(_OPEN_TREE, dir_fd, os.fsencode(path), flags)


def attach_mount(fd: int, target: str, *, target_fd: int = _AT_FDCWD) -> None:
    """Put a detached mount at a place (move_mount); `target` '' means the directory or file `target_fd`."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | (0 if target else _MOVE_MOUNT_T_EMPTY_PATH)
    syscall(_MOVE_MOUNT, fd, b"", target_fd, os.fsencode(target), flags)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount_setattr(
    fd: int, *, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, path: str = ""
) -> None:
    """mount_setattr(2) (Linux 5.12) on the mount that `fd` (and `path` beneath it) is in. Raises OSError."""
    attributes = _MountAttr(set_, clear, propagation, 0)
    flags = (0 if path else _AT_EMPTY_PATH) | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attributes)
    syscall(_MOUNT_SETATTR, fd, os.fsencode(path), flags, ctypes.byref(attributes), size)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2). Raises OSError."""
    syscall(_PIVOT_ROOT[os.uname().machine], os.fsencode(new_root), os.fsencode(put_old))


def _path(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)
