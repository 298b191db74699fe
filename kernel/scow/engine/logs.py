"""Reads a container's log: its files from the oldest, then, when asked, what is still being written."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import trio

from scow.engine.types import LogRecord
from scow.sys.inotify import Watch


class _Line(msgspec.Struct):
    log: str
    stream: str
    time: str


_decoder = msgspec.json.Decoder(_Line)


def parse_line(line: bytes) -> LogRecord | None:
    """One line of a json-file log; None for one that was cut off."""
    try:
        parsed = _decoder.decode(line)
        moment = datetime.fromisoformat(parsed.time).timestamp()
    except (msgspec.MsgspecError, ValueError):
        return None
    return LogRecord("stderr" if parsed.stream == "stderr" else "stdout", parsed.log.encode(), moment)


def past_records(path: Path) -> Iterator[LogRecord]:
    """All that is in the files, oldest first."""
    for file in [*_rotated(path), path]:
        try:
            with file.open("rb") as lines:
                yield from _records(lines)
        except FileNotFoundError:
            continue


def _rotated(path: Path) -> list[Path]:
    """The files that were put away, oldest first: the highest number."""
    older = [file for file in path.parent.glob(path.name + ".*") if file.suffix[1:].isdecimal()]
    return sorted(older, key=lambda file: -int(file.suffix[1:]))


def select(
    records: Iterable[LogRecord], tail: int | None, since: float | None, until: float | None
) -> Iterable[LogRecord]:
    """The records between two times, and of these the last `tail`."""
    between = (r for r in records if (since is None or r.time >= since) and (until is None or r.time <= until))
    return between if tail is None else deque(between, maxlen=max(tail, 0))


async def follow_records(
    path: Path, tail: int | None, since: float | None, until: float | None, alive: Callable[[], bool]
) -> AsyncGenerator[LogRecord, None]:
    """The past, then what comes, as long as `alive()` says that somebody writes."""
    with Watch(path.parent) as watch, ExitStack() as files:
        file = files.enter_context(path.open("rb"))
        past = [record for older in _rotated(path) for record in past_records(older)]
        fresh, rest = _fresh(file, b"")
        for record in select([*past, *fresh], tail, since, until):
            yield record
        while True:
            ended = not alive() or (until is not None and time.time() >= until)
            rotated = _was_rotated(file, path)
            fresh, rest = _fresh(file, rest)
            for record in select(fresh, None, since, until):
                yield record
            if rotated:
                files.close()
                file, rest = files.enter_context(path.open("rb")), b""
                continue
            if ended:
                return
            # Looking again now and then: a supervisor that was killed writes no last line.
            with trio.move_on_after(1):
                await watch.changed()


def _was_rotated(file: BinaryIO, path: Path) -> bool:
    """Whether the writer has gone on to a new file; nothing more is written to the old one then."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _fresh(file: BinaryIO, rest: bytes) -> tuple[list[LogRecord], bytes]:
    *lines, rest = (rest + file.read()).split(b"\n")
    return list(_records(lines)), rest


def _records(lines: Iterable[bytes]) -> Iterator[LogRecord]:
    for line in lines:
        if (record := parse_line(line)) is not None:
            yield record
