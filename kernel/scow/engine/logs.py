"""Reads a container's log: its files from the oldest, then, when asked, what is still being written.

All of it goes in blocks, so that memory is bounded and time is spent on bytes: an entry is one struct, decoded with
hundreds of others (msgspec's decode_lines), and its time stays text unless somebody wants a number.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import trio

from scow.engine.logspan import BLOCK, identity, open_files, spans, whole_entries
from scow.engine.types import LogRecord, Output
from scow.sys.inotify import Watch

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
#: Seconds of the last time that RFC 3339 can say.
_LAST: Final = 253402300799


class Entry(msgspec.Struct):
    """One line of a json-file log."""

    log: str
    stream: str
    time: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries: from one time to another (seconds since 1970), of those that are there already the last `tail`."""

    tail: int | None = None
    since: float | None = None
    until: float | None = None

    @property
    def first(self) -> str:
        """The first time as entries have it; empty for none."""
        return "" if self.since is None or self.since <= 0 else _stamp(self.since, 0)

    def has(self, entry: Entry) -> bool:
        """Whether an entry lies between the times."""
        return entry.time >= self.first and (not self.last or entry.time <= self.last)

    @property
    def last(self) -> str:
        """The last time. Numbers know microseconds, entries nanoseconds: all of the last microsecond belong to it."""
        return "" if self.until is None or self.until > _LAST else _stamp(self.until, 999)


def _stamp(seconds: float, nanoseconds: int) -> str:
    moment = _EPOCH + timedelta(microseconds=math.floor(max(0, min(seconds, _LAST)) * 10**6 + 0.5))
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}{nanoseconds:03}Z"


_decoder = msgspec.json.Decoder(Entry)


def entries_of(block: bytes) -> list[Entry]:
    """The entries of whole lines; what is none (a disk was full, a file is damaged) is left out."""
    try:
        return _decoder.decode_lines(block)
    except (msgspec.MsgspecError, ValueError):
        lines = (_entry(line) for line in block.split(b"\n"))
        return [entry for entry in lines if entry is not None]


def _entry(line: bytes) -> Entry | None:
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, ValueError):
        return None


async def records(blocks: AsyncIterator[list[Entry]]) -> AsyncGenerator[LogRecord, None]:
    """The same with times as numbers; an entry whose time is none is left out."""
    async for entries in blocks:
        for entry in entries:
            try:
                moment = datetime.fromisoformat(entry.time).timestamp()
            except ValueError:
                continue
            yield LogRecord("stderr" if entry.stream == "stderr" else "stdout", entry.log.encode(), moment)


async def shown(blocks: AsyncIterator[list[Entry]], *, timestamps: bool) -> AsyncGenerator[Output, None]:
    """The same as it is shown; entries of one stream that follow each other come together."""
    async for entries in blocks:
        for stream, group in groupby(entries, key=attrgetter("stream")):
            if timestamps:
                text = "".join([f"{entry.time} {entry.log}" for entry in group])
            else:
                text = "".join([entry.log for entry in group])
            yield Output("stderr" if stream == "stderr" else "stdout", text.encode())


async def past(path: Path, wanted: Wanted) -> AsyncGenerator[list[Entry], None]:
    """What is in the files, oldest first, some hundreds at a time."""
    with ExitStack() as stack:
        files = [stack.enter_context(file) for file in open_files(path)]
        for span in spans(files, wanted.tail, wanted.first, wanted.last):
            for block in span.blocks():
                await trio.lowlevel.checkpoint()
                yield entries_of(block)


async def followed(path: Path, wanted: Wanted, alive: Callable[[], bool]) -> AsyncGenerator[list[Entry], None]:
    """The past, then what comes, as long as `alive()` says that somebody writes."""
    with Watch(path.parent) as watch, ExitStack() as stack:
        files = [stack.enter_context(file) for file in open_files(path)]
        found = spans(files, wanted.tail, wanted.first, wanted.last)
        for span in found:
            for block in span.blocks():
                await trio.lowlevel.checkpoint()
                yield entries_of(block)
        newest = stack.enter_context(_Newest(path, files.pop(), found[-1].end))
        while True:
            ended = not alive() or (wanted.until is not None and time.time() >= wanted.until)
            rotated = newest.was_put_away()
            for block in newest.fresh():
                await trio.lowlevel.checkpoint()
                yield [entry for entry in entries_of(block) if wanted.has(entry)]
            if rotated:
                newest.turn()
            elif ended:
                return
            else:
                # Looking again now and then: a supervisor that was killed writes no last line.
                with trio.move_on_after(1):
                    await watch.changed()


class _Newest:
    """The file that is being written, and how far it has been read. Owns the file."""

    def __init__(self, path: Path, file: BinaryIO, at: int) -> None:
        self._path = path
        self._file = file
        self._at = at
        self._rest = b""

    def __enter__(self) -> _Newest:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def was_put_away(self) -> bool:
        """Whether the writer has gone on to a new file; nothing more is written to this one then."""
        try:
            return not os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def fresh(self) -> Iterator[bytes]:
        """What has come since, in blocks of whole entries."""
        while data := os.pread(self._file.fileno(), BLOCK, self._at):
            self._at += len(data)
            whole, self._rest = whole_entries(self._rest + data)
            if whole:
                yield whole

    def turn(self) -> None:
        """Go on to the file that came after this one: perhaps not yet the newest, if much is written."""
        files = open_files(self._path)
        known = [identity(file) for file in files]
        ours = identity(self._file)
        following = known.index(ours) + 1 if ours in known else 0
        for number, file in enumerate(files):
            if number != following:
                file.close()
        if following < len(files):
            self._file.close()
            self._file, self._at, self._rest = files[following], 0, b""
