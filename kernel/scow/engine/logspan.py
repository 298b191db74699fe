"""The files of a container's log, and where in them what somebody wants begins and ends.

Entries lie in the order of their times, so a time is found by halving and the last entries from the end: what it costs
doesn't grow with the log. (A clock that was set back leaves entries out of order; those before the step may then be
missed by a time, never by reading all.)
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

BLOCK: Final = 256 * 1024
#: No entry of ours is longer: a piece of 16 KiB whose every byte is written as \\u00XX, and its frame.
_ENTRY_MAX: Final = 128 * 1024
_TIME: Final = b'"time":"'


@dataclass(slots=True)
class Span:
    """A part of one file: the entries between two offsets, which are those of beginnings of entries."""

    file: BinaryIO
    begin: int
    end: int

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, in pieces of whole entries."""
        at, rest = self.begin, b""
        while at < self.end:
            data = os.pread(self.file.fileno(), min(BLOCK, self.end - at), at)
            if not data:
                return
            at += len(data)
            whole, rest = whole_entries(rest + data)
            if whole:
                yield whole


def whole_entries(data: bytes) -> tuple[bytes, bytes]:
    """Whole lines, and what comes behind them; what is too long to be an entry goes."""
    end = data.rfind(b"\n") + 1
    rest = data[end:]
    return data[:end], rest if len(rest) <= _ENTRY_MAX else b""


def open_files(path: Path) -> list[BinaryIO]:
    """The log's files, oldest first; the caller closes them.

    They are opened from the newest on, because a writer may put them away meanwhile (`x` becomes `x.1`, `x.1` becomes
    `x.2`): then one is met twice, and none is missed.
    """
    found: dict[tuple[int, int], BinaryIO] = {}
    for name in (path, *(path.with_name(f"{path.name}.{number}") for number in range(1, _highest(path) + 3))):
        try:
            file = name.open("rb")
        except FileNotFoundError:
            continue
        if found.setdefault(identity(file), file) is not file:
            file.close()
    return list(reversed(found.values()))


def identity(file: BinaryIO) -> tuple[int, int]:
    """What a file is, whatever its name."""
    status = os.fstat(file.fileno())
    return status.st_dev, status.st_ino


def _highest(path: Path) -> int:
    suffixes = (file.suffix[1:] for file in path.parent.glob(path.name + ".*"))
    return max((int(suffix) for suffix in suffixes if suffix.isdecimal() and len(suffix) < 6), default=0)


def spans(files: list[BinaryIO], tail: int | None, since: str, until: str) -> list[Span]:
    """The entries from one time to another (RFC 3339 with nanoseconds; empty: no bound), of these the last `tail`."""
    found = []
    for file in files:
        end = _last_end(file)
        found.append(
            Span(
                file,
                _place(file, end, since, later=False) if since else 0,
                _place(file, end, until, later=True) if until else end,
            )
        )
    return found if tail is None else _last(found, max(tail, 0))


def _last_end(file: BinaryIO) -> int:
    """Behind the last whole entry: the writer may be in the middle of the next."""
    size = os.fstat(file.fileno()).st_size
    begin = max(size - _ENTRY_MAX, 0)
    return begin + os.pread(file.fileno(), size - begin, begin).rfind(b"\n") + 1


def _place(file: BinaryIO, end: int, stamp: str, *, later: bool) -> int:
    """Where the first entry begins whose time is at least (`later`: more than) `stamp`."""
    low, high = 0, end
    while high - low > _ENTRY_MAX * 2:
        middle = (low + high) // 2
        at = middle + _next_line(file, middle)
        if at < high and _precedes(os.pread(file.fileno(), _ENTRY_MAX, at), stamp, later=later):
            low = at
        else:
            high = middle
    # An entry may begin before `high` and end behind it.
    data = os.pread(file.fileno(), min(high + _ENTRY_MAX, end) - low, low)
    at = 0
    while (line_end := data.find(b"\n", at) + 1) and _precedes(data[at:line_end], stamp, later=later):
        at = line_end
    return low + at


def _next_line(file: BinaryIO, at: int) -> int:
    """How far it is to the beginning of the next line."""
    data = os.pread(file.fileno(), _ENTRY_MAX, at)
    return (data.find(b"\n") + 1) or len(data)


def _precedes(line: bytes, stamp: str, *, later: bool) -> bool:
    """Whether the entry at the beginning of `line` is before a time; one that is none of ours is."""
    entry = line[: line.find(b"\n")]
    _, found, rest = entry.rpartition(_TIME)
    time = rest[: rest.find(b'"')].decode(errors="replace")
    return not found or time < stamp or (later and time == stamp)


def _last(found: list[Span], count: int) -> list[Span]:
    """The last entries of all spans; one of which there are none is empty at its end."""
    kept = []
    for span in reversed(found):
        begin, count = _from_end(span, count)
        kept.append(Span(span.file, begin, span.end))
    return list(reversed(kept))


def _from_end(span: Span, count: int) -> tuple[int, int]:
    """Where the last `count` entries of a span begin, and how many it lacks."""
    at = span.end
    if count == 0:
        return at, 0
    while at > span.begin:
        size = min(BLOCK, at - span.begin)
        data = os.pread(span.file.fileno(), size, at - size)
        lines = data.count(b"\n")
        # The line break before the first one wanted is looked for, too.
        if lines > count:
            end = len(data)
            for _ in range(count + 1):
                end = data.rfind(b"\n", 0, end)
            return at - size + end + 1, 0
        count -= lines
        at -= size
    return span.begin, count
