"""File contents on their way to the disk: sync_file_range(2)."""

from __future__ import annotations

from typing import Final

from scow.sys.libc import call

__all__ = ["start_writeback"]

_SYNC_FILE_RANGE_WRITE: Final = 2


def start_writeback(fd: int) -> None:
    """Ask the kernel to begin writing a file's dirty pages, without waiting for them. Raises OSError."""
    call("sync_file_range", fd, 0, 0, _SYNC_FILE_RANGE_WRITE)
