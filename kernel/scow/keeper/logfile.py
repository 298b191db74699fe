"""Writes a container's output as Docker's json-file log driver does: one JSON object a line, with stream and time.

Output goes in blocks: what one read(2) brought is stamped, quoted and written at once, whatever lines it has. So a
container that writes much pays for bytes, not for lines.
"""

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
#: Stand for a line break while a block is quoted. The first keeps ASCII what is ASCII, which is quicker; the second is
#: for text that has the first: decoded text can't hold it, because UTF-8 has no surrogates.
_BREAK, _SURE_BREAK = "\x7f", "\ud800"
#: What JSON has another way to write (RFC 8259, section 7), but for the line break.
_ESCAPED = bytes({*range(0x20), ord('"'), ord("\\")} - {ord("\n")})


class LogFile:
    """Takes output in any pieces; writes whole lines, rotating where that is asked for.

    A full disk loses log lines, never the container.
    """

    def __init__(self, path: str, max_size: int, max_file: int) -> None:
        self._path = path
        self._max_size = max_size
        self._max_file = max_file
        self._fd = self._open()
        #: The last write stopped within an entry (the disk was full): the next one begins a new line.
        self._torn = False
        #: What has come of each stream since its last line break; always less than a piece.
        self.rest = {1: bytearray(), 2: bytearray()}

    def settings(self) -> tuple[str, int, int]:
        """What another one is made of that writes on."""
        return self._path, self._max_size, self._max_file

    def write(self, stream: int, data: bytes) -> None:
        """Add output of stream 1 (stdout) or 2 (stderr)."""
        rest = self.rest[stream]
        if rest:
            data = bytes(rest) + data
        stamp = _stamp()
        begin = end = 0
        while True:
            # As many lines as fit into a piece: none of them is too long.
            newline = data.rfind(b"\n", end, end + _PIECE)
            if newline >= 0:
                end = newline + 1
            elif len(data) - end >= _PIECE:
                cut = _whole(data, end, end + _PIECE)
                self._put(_entries(stream, data[begin:end], stamp) + _entries(stream, data[end:cut], stamp))
                begin = end = cut
            else:
                break
        self._put(_entries(stream, data[begin:end], stamp))
        rest[:] = data[end:]

    def flush(self, stream: int) -> None:
        """Write what came without a line break: the stream has ended."""
        rest = self.rest[stream]
        if rest:
            self._put(_entries(stream, bytes(rest), _stamp()))
            rest.clear()

    def close(self) -> None:
        """Write what came without a line break, and close."""
        for stream in self.rest:
            self.flush(stream)
        posix.close(self._fd)

    def _put(self, entries: bytes) -> None:
        """Write entries, as many to a file as it may hold."""
        try:
            while entries:
                fit = self._fitting(entries)
                if fit:
                    self._append(entries[:fit])
                    entries = entries[fit:]
                else:
                    self._rotate()
        except OSError:
            pass

    def _fitting(self, entries: bytes) -> int:
        """How many bytes of whole entries still go into this file; of an empty one's at least the first."""
        if not self._max_size:
            return len(entries)
        size = posix.fstat(self._fd).st_size
        if size + len(entries) <= self._max_size:
            return len(entries)
        fit = entries.rfind(b"\n", 0, max(self._max_size - size, 0)) + 1
        return fit if fit or size else entries.find(b"\n") + 1

    def _append(self, data: bytes) -> None:
        if self._torn:
            data = b"\n" + data
        at = 0
        try:
            while at < len(data):
                at += posix.write(self._fd, data[at:] if at else data)
            self._torn = False
        finally:
            if 0 < at < len(data):
                self._torn = data[at - 1 : at] != b"\n"

    def _rotate(self) -> None:
        """Put the file away and begin a new one. Raises OSError: then the old one goes on, whatever it is called."""
        for number in range(self._max_file - 1, 0, -1):
            newer = self._path if number == 1 else f"{self._path}.{number - 1}"
            _rename(newer, f"{self._path}.{number}")
        if self._max_file <= 1:
            posix.unlink(self._path)
        fresh = self._open()
        posix.close(self._fd)
        self._fd, self._torn = fresh, False

    def _open(self) -> int:
        return posix.open(self._path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC, 0o600)


def _rename(source: str, target: str) -> None:
    try:
        posix.replace(source, target)
    except FileNotFoundError:
        pass


def _stamp() -> str:
    """The time, as RFC 3339 has it, with nanoseconds; texts of this form are in the order of their times."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def _entries(stream: int, data: bytes, stamp: str) -> bytes:
    """One entry for each line; the last may be without its line break."""
    if not data:
        return b""
    end = f'","stream":"{_NAMES[stream]}","time":"{stamp}"}}\n'
    text, mark = _escaped(data)
    last = end
    if text.endswith(mark):
        text, last = text[: -len(mark)], "\\n" + end
    return ('{"log":"' + text.replace(mark, "\\n" + end + '{"log":"') + last).encode()


def _escaped(data: bytes) -> tuple[str, str]:
    """The text as it stands within quotes in JSON, and what stands in it for a line break."""
    text = data.decode(errors="replace")
    if len(data.translate(None, _ESCAPED)) == len(data):
        return text, "\n"
    mark = _SURE_BREAK if _BREAK in text else _BREAK
    return _quoted(text.replace("\n", mark))[1:-1], mark


def _whole(data: bytes, begin: int, end: int) -> int:
    """Where to cut at or before `end` so that no character of UTF-8 is cut in two (RFC 3629: at most four bytes)."""
    for at in range(end, max(begin, end - 4), -1):
        if at == len(data) or data[at] & 0xC0 != 0x80:
            return at
    return end
