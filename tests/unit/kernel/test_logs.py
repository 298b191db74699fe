"""A container's log: what is written, and how it is read."""

# ruff: noqa: ASYNC110

from __future__ import annotations

import errno
import json
import os
import posix
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from scow.engine.logs import Entry, Wanted, entries_of, followed, past, records, shown
from scow.engine.types import LogRecord
from scow.keeper import logfile
from scow.keeper.logfile import LogFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x-json.log"


async def read(path: Path, **wanted: Any) -> list[LogRecord]:
    return [record async for record in records(past(path, Wanted(**wanted)))]


def texts(path: Path) -> list[tuple[str, bytes]]:
    return [(record.stream, record.data) for record in trio.run(read, path)]


def test_docker_s_format(path: Path) -> None:
    log = LogFile(path, 0, 1)
    log.write(1, b"hello\n")
    log.close()
    record = json.loads(path.read_text())
    assert set(record) == {"log", "stream", "time"}
    assert (record["log"], record["stream"]) == ("hello\n", "stdout")
    assert record["time"].endswith("Z")
    assert len(record["time"]) == len("2024-01-01T00:00:00.123456789Z")
    assert path.stat().st_mode & 0o777 == 0o600


def test_partial_lines(path: Path) -> None:
    log = LogFile(path, 0, 1)
    log.write(1, b"a")
    log.write(2, b"x\ny")
    log.write(1, b"b\nc")
    assert texts(path) == [("stderr", b"x\n"), ("stdout", b"ab\n")]
    log.flush(2)
    assert texts(path)[2:] == [("stderr", b"y")]
    log.close()
    assert texts(path)[3:] == [("stdout", b"c")]


def test_long_lines_come_in_pieces(path: Path) -> None:
    log = LogFile(path, 0, 1)
    line = b"x" * 40_000 + b"\n"
    log.write(1, line[:30_000])
    log.write(1, line[30_000:])
    log.close()
    pieces = [data for _, data in texts(path)]
    assert b"".join(pieces) == line
    assert [len(piece) for piece in pieces] == [16384, 16384, 7233]


def test_bytes_that_are_no_utf8(path: Path) -> None:
    log = LogFile(path, 0, 1)
    log.write(1, b"a\xffb\0c\x1b[0m\n")
    log.close()
    assert texts(path) == [("stdout", "a\ufffdb\0c\x1b[0m\n".encode())]


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_nothing_is_lost(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "l"
    log = LogFile(path, 0, 1)
    for piece in pieces:
        log.write(1, piece)
    log.close()
    whole = b"".join(pieces)
    lines = whole.splitlines(keepends=True) if b"\n" not in whole else [line + b"\n" for line in whole.split(b"\n")]
    expected = "".join(line.decode(errors="replace") for line in whole.split(b"\n")).encode()
    assert b"".join(data for _, data in texts(path)).replace(b"\n", b"") == expected
    assert lines or not whole


def test_rotation(path: Path) -> None:
    log = LogFile(path, 300, 3)
    for number in range(20):
        log.write(1, f"{number}\n".encode())
    log.close()
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, path.name + ".1", path.name + ".2"]
    numbers = [int(data) for _, data in texts(path)]
    assert numbers == list(range(numbers[0], 20))
    assert len(numbers) >= 8


def test_rotation_with_one_file(path: Path) -> None:
    log = LogFile(path, 100, 1)
    for number in range(5):
        log.write(1, f"{number}\n".encode() * 2)
    log.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_full_disk_loses_lines_only(path: Path) -> None:
    log = LogFile(Path("/dev/full"), 0, 1)
    log.write(1, b"x\n")
    log.close()


def test_foreign_files_beside_the_log(path: Path) -> None:
    LogFile(path, 0, 1).close()
    (path.parent / (path.name + ".gz")).write_bytes(b"x")
    (path.parent / (path.name + ".bak")).write_bytes(b"x")
    assert texts(path) == []


def written(path: Path, count: int, *, max_size: int = 0, max_file: int = 1) -> None:
    """Entries 0, 1, …, a second apart from the first of January on."""
    log = LogFile(path, max_size, max_file)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    for number in range(count):
        stamp = f"{start + timedelta(seconds=number):%Y-%m-%dT%H:%M:%S}.250000500Z"
        log._put(logfile._entries(1, b"%d\n" % number, stamp))
    log.close()


BEGIN = datetime(2024, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("size", [0, 160])
@pytest.mark.parametrize(
    ("tail", "since", "until", "numbers"),
    [(None, None, None, [0, 1, 2, 3]), (2, None, None, [2, 3]), (0, None, None, []), (-1, None, None, []),
     (None, 1.5, None, [2, 3]), (None, 2.25, None, [2, 3]), (None, None, 1.25, [0, 1]), (1, None, 1.5, [1]),
     (9, 0.5, 2.5, [1, 2]), (None, 9, None, []), (None, None, -1, []), (4, -9e9, 9e99, [0, 1, 2, 3])],
)  # fmt: skip
async def test_which(
    path: Path, size: int, tail: int | None, since: float | None, until: float | None, numbers: list[int]
) -> None:
    written(path, 4, max_size=size, max_file=9)
    assert len(list(path.parent.iterdir())) == (2 if size else 1)
    how = {
        "tail": tail,
        "since": None if since is None else BEGIN + since,
        "until": None if until is None else BEGIN + until,
    }
    assert [int(record.data) for record in await read(path, **how)] == numbers


async def test_a_large_log_is_not_read_for_its_end_or_for_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 100_000
    written(path, count, max_size=3_000_000, max_file=9)
    taken = 0
    pread = os.pread

    def counting(fd: int, size: int, at: int) -> bytes:
        nonlocal taken
        taken += len(data := pread(fd, size, at))
        return data

    monkeypatch.setattr(os, "pread", counting)
    for tail in (1, 10, 3000):
        assert [int(r.data) for r in await read(path, tail=tail)] == list(range(count - tail, count))
    assert taken < 4_000_000
    taken = 0
    for at in (0, 1, 777, 50_000, 99_998):
        for more in (0, 1, 5):
            got = await read(path, since=BEGIN + at, until=BEGIN + at + more)
            assert [int(r.data) for r in got] == list(range(at, min(at + more, count)))
    assert taken < 15 * 9_000_000
    assert sum(file.stat().st_size for file in path.parent.iterdir()) > 7_000_000


@given(st.integers(1, 40), st.integers(0, 45), st.integers(-2, 42), st.integers(-2, 42), st.sampled_from([0, 200, 900]))
def test_any_piece_is_found(
    tmp_path_factory: pytest.TempPathFactory, count: int, tail: int, since: int, until: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "l"
    written(path, count, max_size=size, max_file=99)
    wanted = [number for number in range(count) if since <= number < until]
    got = trio.run(partial(read, path, tail=tail, since=BEGIN + since, until=BEGIN + until))
    assert [int(record.data) for record in got] == (wanted[-tail:] if tail else [])


def test_lines_in_the_form_of_the_terminal(path: Path) -> None:
    """Blocks come whole, per stream, with each line's time when it is asked for."""
    log = LogFile(path, 0, 1)
    log.write(1, b"a\nb\n")
    log.write(2, b"c\n")
    log.close()

    async def taken(*, timestamps: bool) -> list[tuple[str, bytes]]:
        return [(o.stream, o.data) async for o in shown(past(path, Wanted()), timestamps=timestamps)]

    assert trio.run(partial(taken, timestamps=False)) == [("stdout", b"a\nb\n"), ("stderr", b"c\n")]
    (_, stamped), _ = trio.run(partial(taken, timestamps=True))
    assert [line.split(b" ")[1] for line in stamped.splitlines()] == [b"a", b"b"]
    assert len(stamped) == 2 * len("2024-01-01T00:00:00.123456789Z a\n")


def test_lines() -> None:
    line = b'{"log":"x","stream":"stderr","time":"2024-01-01T00:00:00.123456789Z"}'
    assert entries_of(line + b"\n") == [Entry("x", "stderr", "2024-01-01T00:00:00.123456789Z")]
    for end in range(1, len(line)):
        assert entries_of(line[:end] + b"\n" + line + b"\n") == entries_of(line + b"\n")
    assert entries_of(b"\xff\n\n") == []


def test_a_time_that_is_none(path: Path) -> None:
    path.write_text('{"log":"x","stream":"stdout","time":"yesterday"}\n{"log":"torn')
    assert texts(path) == []


async def followed_until(path: Path, count: int, act: object, tail: int | None = None) -> list[bytes]:
    got: list[bytes] = []
    alive = True

    async def follow() -> None:
        async for one in records(followed(path, Wanted(tail), lambda: alive)):
            got.append(one.data)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await trio.sleep(0.02)
            await act()  # type: ignore[operator]
            while len(got) < count:
                await trio.sleep(0.005)
            alive = False
    return got


async def test_follow(path: Path) -> None:
    log = LogFile(path, 0, 1)
    log.write(1, b"old\nlast\n")

    async def act() -> None:
        for number in range(5):
            log.write(1, b"%d\n" % number)
            await trio.sleep(0.001)

    assert await followed_until(path, 6, act, tail=1) == [b"last\n", *(b"%d\n" % n for n in range(5))]
    log.close()


async def test_follow_over_rotation(path: Path) -> None:
    log = LogFile(path, 400, 3)
    for number in range(6):
        log.write(1, b"%d\n" % number)

    async def act() -> None:
        for number in range(6, 30):
            log.write(1, b"%d\n" % number)
            await trio.sleep(0.005)

    assert await followed_until(path, 30, act) == [b"%d\n" % n for n in range(30)]
    log.close()


async def test_follow_ends_when_nobody_writes(path: Path) -> None:
    log = LogFile(path, 0, 1)
    log.write(1, b"x\n")
    log.close()
    with trio.fail_after(2):
        assert [r.data async for r in records(followed(path, Wanted(), lambda: False))] == [b"x\n"]


async def test_follow_from_the_end_only(path: Path) -> None:
    log = LogFile(path, 0, 1)
    log.write(1, b"old\n")

    async def act() -> None:
        log.write(1, b"new\n")

    assert await followed_until(path, 1, act, tail=0) == [b"new\n"]
    log.close()


async def test_files_that_come_and_go_quicker_than_they_are_read(path: Path) -> None:
    """A reader that slept while several files were put away goes through all of them."""
    log = LogFile(path, 200, 50)
    log.write(1, b"first\n")

    async def act() -> None:
        for number in range(60):
            log.write(1, b"%d\n" % number)

    assert await followed_until(path, 61, act) == [b"first\n", *(b"%d\n" % n for n in range(60))]
    log.close()


def test_a_block_larger_than_a_file_may_be(path: Path) -> None:
    log = LogFile(path, 1000, 100)
    lines = b"".join(b"%d\n" % number for number in range(400))
    log.write(1, lines)
    log.close()
    assert b"".join(data for _, data in texts(path)) == lines
    assert max(file.stat().st_size for file in path.parent.iterdir()) <= 1000


def test_no_character_is_cut_in_two(path: Path) -> None:
    log = LogFile(path, 0, 1)
    for shift in range(4):
        log.write(1, b"x" * shift + "\U0001f600".encode() * 9000 + b"\n")
    log.close()
    whole = b"".join(data for _, data in texts(path)).decode()
    assert whole == "".join("x" * shift + "\U0001f600" * 9000 + "\n" for shift in range(4))


@given(st.text(st.sampled_from('ab"\\\n\x7f\x00\u2028é'), max_size=50))
def test_all_that_json_writes_otherwise(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("log") / "l"
    log = LogFile(path, 0, 1)
    log.write(1, text.encode())
    log.close()
    assert [data for _, data in texts(path)] == [line.encode() for line in re.findall(r"[^\n]*\n|[^\n]+", text)]


def test_after_a_disk_was_full_the_next_entry_is_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(path, 0, 1)
    write = posix.write

    def full(fd: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, "no space")
        return write(fd, data[: len(data) - 10])

    monkeypatch.setattr(posix, "write", full)
    log.write(1, b"lost\n")
    monkeypatch.undo()
    log.write(1, b"kept\n")
    log.close()
    assert texts(path) == [("stdout", b"kept\n")]
