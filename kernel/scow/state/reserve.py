"""A megabyte kept for the day on which the disk is full: without it, nothing could be removed any more.

Removing an image or a container begins with a transaction, and that needs room for itself. So a file without a meaning
lies in the root directory, and goes when room is short; it is made again when there is enough.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SIZE: Final = 1 << 20
#: Below this the reserve is given away, in bytes.
_SHORT: Final = 1 << 18
#: Above this it is made.
_ENOUGH: Final = 64 << 20


def keep_reserve(root: Path) -> None:
    """Make the reserve of a root directory where it is missing and there is room. Never fails."""
    path = _path(root)
    if path.exists() or _free(root) < _ENOUGH:
        return
    with suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, SIZE)
        finally:
            os.close(fd)


def give_reserve(root: Path) -> None:
    """Give the reserve away if room is short. Cheap; never fails."""
    if _free(root) < _SHORT:
        with suppress(OSError):
            _path(root).unlink(missing_ok=True)


def _path(root: Path) -> Path:
    return root / "reserve"


def _free(root: Path) -> int:
    """Bytes that root may still write, those included that are kept for it."""
    try:
        disk = os.statvfs(root)
    except OSError:
        return 0
    return disk.f_bfree * disk.f_frsize
