"""A container's journal: what a supervisor holds that would outlive it, one JSON line each, in the run directory.

Written before the thing is acquired and after it was released. No fsync: after a kill -9 the page cache is still
there, and after a reboot neither the things nor the run directory are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

Handle = dict[str, str | int]


class _Line(msgspec.Struct):
    entry: int | None = None
    released: int | None = None
    stage: str = ""
    plugin: str = ""
    handle: Handle = {}


_decode: Final = msgspec.json.Decoder(_Line).decode


class JournalFile:
    """Appends to one container's journal."""

    def __init__(self, rundir: Path) -> None:
        self._fd = os.open(
            rundir / "journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
        )
        self._last = 0

    def bound(self, stage: str, plugin: str) -> BoundJournal:
        """The journal as one plugin's stage sees it."""
        return BoundJournal(self, stage, plugin)

    def append(self, stage: str, plugin: str, handle: Handle) -> int:
        self._last += 1
        self._write({"entry": self._last, "stage": stage, "plugin": plugin, "handle": handle})
        return self._last

    def release(self, entry: int) -> None:
        self._write({"released": entry})

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._fd, msgspec.json.encode(line) + b"\n")


class BoundJournal:
    """See `scow.model.journal.Journal`."""

    def __init__(self, file: JournalFile, stage: str, plugin: str) -> None:
        self._file = file
        self._stage = stage
        self._plugin = plugin

    def hold(self, **handle: str | int) -> int:
        return self._file.append(self._stage, self._plugin, handle)

    def release(self, entry: int) -> None:
        self._file.release(entry)


def unreleased(rundir: Path) -> Iterator[tuple[str, str, Handle]]:
    """What a dead supervisor still held: (stage, plugin, handle), last acquired first."""
    held: dict[int, tuple[str, str, Handle]] = {}
    try:
        lines = (rundir / "journal").read_bytes().splitlines()
    except OSError:
        return
    for line in lines:
        try:
            entry = _decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # the last line of a process that was killed while it wrote
        if entry.released is not None:
            held.pop(entry.released, None)
        elif entry.entry is not None:
            held[entry.entry] = (entry.stage, entry.plugin, entry.handle)
    yield from reversed(held.values())
