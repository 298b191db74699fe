"""Terminals: a pair out of the container's own devpts, made by the child, kept by the supervisor."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import termios
from typing import Final

from scow.api.linux import attach_mount, clone_mount, open_beneath
from scow_plugins.namespaces._beneath import open_place

__all__ = ["control", "open_terminal", "resize", "show_console"]

_TIOCGPTPEER: Final = 0x5441
_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTN: Final = 0x80045430
_PTMX: Final = os.makedev(5, 2)


def open_terminal(root: int) -> tuple[int, int]:
    """(master, slave) of a new terminal. Raises OSError."""
    flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK
    place = open_beneath(root, "/dev/pts/ptmx", os.O_PATH)
    try:
        _check_master(place)
    finally:
        os.close(place)
    master = open_beneath(root, "/dev/pts/ptmx", flags)
    _check_master(master)  # in a running container something else may have come to lie there
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    # By the master and not by name: what lies at the name may be something else.
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return master, slave


def _check_master(fd: int) -> None:
    found = os.fstat(fd)
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != _PTMX:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY), "/dev/pts/ptmx")


def show_console(root: int, master: int) -> None:
    """Put the terminal at /dev/console. Raises OSError."""
    number = struct.unpack("i", fcntl.ioctl(master, _TIOCGPTN, b"\0" * 4))[0]
    source = open_beneath(root, f"/dev/pts/{number}", os.O_PATH)
    mount = clone_mount("", dir_fd=source)
    place = open_place(root, "/dev/console", directory=False)
    attach_mount(mount, "", target_fd=place)
    for fd in (source, mount, place):
        os.close(fd)


def control(slave: int) -> None:
    """Make it the controlling terminal of this process, which leads a session. Raises OSError."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def resize(terminal: int, rows: int, columns: int) -> None:
    """Set its size in characters. Raises OSError."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
