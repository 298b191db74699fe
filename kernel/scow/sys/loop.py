"""Loop devices: a file as a block device (loop(4)). The kernel gives them back by itself when nobody uses them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["loop_device"]

_CTL_GET_FREE: Final = 0x4C82
_CONFIGURE: Final = 0x4C0A
_SET_FD, _SET_STATUS64, _CLR_FD = 0x4C00, 0x4C04, 0x4C01
_READ_ONLY, _AUTOCLEAR = 1, 4
#: struct loop_info64: lo_flags stands behind five 64-bit and three 32-bit fields.
_INFO64: Final = struct.Struct("<52xI176x")
#: Another process may take the free device before us.
_ATTEMPTS: Final = 100


@contextmanager
def loop_device(file: int) -> Iterator[str]:
    """A read-only block device of an open file, as a path.

    It goes by itself as soon as neither this block nor a mount uses it, also when the process is killed. Raises
    OSError.
    """
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        device, path = _taken(control, file)
    finally:
        os.close(control)
    try:
        yield path
    finally:
        os.close(device)


def _taken(control: int, file: int) -> tuple[int, str]:
    for _ in range(_ATTEMPTS):
        path = f"/dev/loop{fcntl.ioctl(control, _CTL_GET_FREE)}"
        device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _configure(device, file)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
        else:
            return device, path
    raise OSError(errno.EBUSY, "no loop device is free", "/dev/loop-control")


def _configure(device: int, file: int) -> None:
    info = _INFO64.pack(_READ_ONLY | _AUTOCLEAR)
    try:
        # struct loop_config: the file, the block size (0: the default), loop_info64, eight reserved words.
        fcntl.ioctl(device, _CONFIGURE, struct.pack("<II", file, 0) + info + bytes(64))
    except OSError as error:
        # LOOP_CONFIGURE came with Linux 5.8.
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        fcntl.ioctl(device, _SET_FD, file)
        try:
            fcntl.ioctl(device, _SET_STATUS64, info)
        except OSError:
            fcntl.ioctl(device, _CLR_FD)
            raise
