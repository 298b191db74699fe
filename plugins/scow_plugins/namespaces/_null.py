"""Standard input for those who were given none: the container's own /dev/null, never the host's.

Why: an open descriptor is the way to the file's inode, whatever /dev shows. By /proc/self/fd/0 a container would
change mode and owner of the host's device.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from scow.api.linux import open_beneath

__all__ = ["open_null"]

_NULL: Final = os.makedev(1, 3)


def open_null(root: int) -> int:
    """A descriptor that reads as ended at once. Raises OSError.

    Where /dev/null is missing or something else by now (a FIFO, a disk), it is a pipe that nobody writes to.
    """
    try:
        # O_NONBLOCK: a FIFO in its place must not make us wait.
        fd = open_beneath(root, "/dev/null", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return _ended()
    found = os.fstat(fd)
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == _NULL:
        os.set_blocking(fd, True)
        return fd
    os.close(fd)
    return _ended()


def _ended() -> int:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(writer)
    return reader
