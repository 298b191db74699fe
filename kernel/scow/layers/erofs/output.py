"""The image's file: gathered writes, and the disk kept busy while more is on its way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from scow.layers.erofs.image import Piece

#: After so many new bytes the kernel is asked to begin writing them, so that the last fsync has little left to do.
_NUDGE: Final = 16 << 20


class FileOutput:
    """A `Port` to an open file (read and write). `eager` starts write-back early; errors are OSError."""

    def __init__(self, fd: int, *, eager: bool) -> None:
        self._fd = fd
        self._eager = eager
        self._fresh = 0

    def write(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Write all pieces, one behind the other."""
        total = sum(map(len, pieces))
        done = os.pwritev(self._fd, pieces, offset)
        if done < total:
            self._rest(offset + done, b"".join(pieces)[done:])
        self._fresh += total
        if self._eager and self._fresh >= _NUDGE:
            self._fresh = 0
            _start_writing(self._fd)

    def read(self, offset: int, size: int) -> bytes:
        """Read back."""
        return os.pread(self._fd, size, offset)

    def _rest(self, offset: int, data: bytes) -> None:
        while data:
            done = os.pwrite(self._fd, data, offset)
            offset, data = offset + done, data[done:]


def _start_writing(fd: int) -> None:
    from scow.sys.files import start_writeback

    start_writeback(fd)
