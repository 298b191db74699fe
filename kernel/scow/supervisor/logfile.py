"""Writes a container's output as Docker's json-file log driver does: one JSON object a line, with stream and time."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

#: A line longer than this is written in pieces, as Docker does (16 KiB).
_PIECE: Final = 16 * 1024
_NAMES: Final = {1: "stdout", 2: "stderr"}


class LogFile:
    """Takes output in any pieces; writes whole lines, rotating where that is asked for.

    A full disk loses log lines, never the container.
    """

    def __init__(self, path: Path, max_size: int, max_file: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._fd = self._open()
        self._rest = {1: bytearray(), 2: bytearray()}

    def write(self, stream: int, data: bytes) -> None:
        """Add output of stream 1 (stdout) or 2 (stderr)."""
        rest = self._rest[stream]
        rest += data
        lines = bytearray()
        while rest:
            end = rest.find(b"\n", 0, _PIECE) + 1
            if not end:
                if len(rest) < _PIECE:
                    break
                end = _PIECE
            lines += self._line(stream, bytes(rest[:end]))
            del rest[:end]
        self._put(bytes(lines))

    def flush(self, stream: int) -> None:
        """Write what came without a line break: the stream has ended."""
        rest = self._rest[stream]
        if rest:
            self._put(self._line(stream, bytes(rest)))
            rest.clear()

    def close(self) -> None:
        """Write what came without a line break, and close."""
        for stream in self._rest:
            self.flush(stream)
        os.close(self._fd)

    def _line(self, stream: int, data: bytes) -> bytes:
        seconds = time.time_ns()
        stamp = datetime.fromtimestamp(seconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        record = {
            "log": data.decode(errors="replace"),
            "stream": _NAMES[stream],
            "time": f"{stamp}.{seconds % 10**9:09d}Z",
        }
        return msgspec.json.encode(record) + b"\n"

    def _put(self, data: bytes) -> None:
        if not data:
            return
        try:
            os.write(self._fd, data)
            if self._max_size and os.fstat(self._fd).st_size >= self._max_size:
                self._rotate()
        except OSError:
            pass

    def _rotate(self) -> None:
        os.close(self._fd)
        for number in range(self._max_file - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if newer.exists():
                os.replace(newer, older)
        if self._max_file <= 1:
            self._path.unlink(missing_ok=True)
        self._fd = self._open()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
