"""Writes a container's output as Docker's json-file log driver does: one JSON object a line, with stream and time."""

from __future__ import annotations

import posix
import time

try:
    from _json import encode_basestring as _quoted
except ImportError:  # not CPython
    from json.encoder import encode_basestring as _quoted

#: A line longer than this is written in pieces, as Docker does (16 KiB).
_PIECE = 16 * 1024
_NAMES = {1: "stdout", 2: "stderr"}


class LogFile:
    """Takes output in any pieces; writes whole lines, rotating where that is asked for.

    A full disk loses log lines, never the container.
    """

    def __init__(self, path: str, max_size: int, max_file: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._fd = self._open()
        #: What has come of each stream since its last line break.
        self.rest = {1: bytearray(), 2: bytearray()}

    def settings(self) -> tuple[str, int, int]:
        """What another one is made of that writes on."""
        return self._path, self._max_size, self._max_file

    def write(self, stream: int, data: bytes) -> None:
        """Add output of stream 1 (stdout) or 2 (stderr)."""
        rest = self.rest[stream]
        rest += data
        lines = bytearray()
        while rest:
            end = rest.find(b"\n", 0, _PIECE) + 1
            if not end:
                if len(rest) < _PIECE:
                    break
                end = _PIECE
            lines += _line(stream, bytes(rest[:end]))
            del rest[:end]
        self._put(bytes(lines))

    def flush(self, stream: int) -> None:
        """Write what came without a line break: the stream has ended."""
        rest = self.rest[stream]
        if rest:
            self._put(_line(stream, bytes(rest)))
            rest.clear()

    def close(self) -> None:
        """Write what came without a line break, and close."""
        for stream in self.rest:
            self.flush(stream)
        posix.close(self._fd)

    def _put(self, data: bytes) -> None:
        if not data:
            return
        try:
            posix.write(self._fd, data)
            if self._max_size and posix.fstat(self._fd).st_size >= self._max_size:
                self._rotate()
        except OSError:
            pass

    def _rotate(self) -> None:
        posix.close(self._fd)
        try:
            for number in range(self._max_file - 1, 0, -1):
                newer = self._path if number == 1 else f"{self._path}.{number - 1}"
                _rename(newer, f"{self._path}.{number}")
            if self._max_file <= 1:
                posix.unlink(self._path)
        finally:
            self._fd = self._open()

    def _open(self) -> int:
        return posix.open(self._path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC, 0o600)


def _rename(source: str, target: str) -> None:
    try:
        posix.replace(source, target)
    except FileNotFoundError:
        pass


def _line(stream: int, data: bytes) -> bytes:
    seconds, rest = divmod(time.time_ns(), 10**9)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    text = _quoted(data.decode(errors="replace"))
    return f'{{"log":{text},"stream":"{_NAMES[stream]}","time":"{stamp}.{rest:09d}Z"}}\n'.encode()
