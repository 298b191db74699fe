"""Frames between a supervisor and its clients; the log that it writes and the engine reads."""

# ruff: noqa: ASYNC110

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from scow.engine.logs import follow_records, parse_line, past_records, select
from scow.engine.types import LogRecord
from scow.errors import Corrupt
from scow.keeper.logfile import LogFile
from scow.supervisor.frames import FRAME_MAX, Decoder, Frame, Stream, encode, encode_control

_frames = st.lists(st.builds(Frame, st.sampled_from(Stream), st.binary(max_size=40)), max_size=6)


@given(_frames, st.lists(st.integers(1, 20)))
def test_any_cut_gives_the_same_frames(frames: list[Frame], sizes: list[int]) -> None:
    wire = b"".join(encode(*frame) for frame in frames)
    assert list(Decoder().feed(wire)) == frames
    by_byte, by_piece = Decoder(), Decoder()
    assert [frame for at in range(len(wire)) for frame in by_byte.feed(wire[at : at + 1])] == frames
    got, at = [], 0
    for size in [*sizes, len(wire)]:
        got += list(by_piece.feed(wire[at : at + size]))
        at += size
    assert got == frames


@given(st.binary(max_size=64))
def test_any_bytes_are_frames_or_corrupt(data: bytes) -> None:
    try:
        for frame in Decoder().feed(data):
            assert len(frame.data) <= len(data)
    except Corrupt:
        pass


@pytest.mark.parametrize("header", [b"\4\0\0\0\0\0\0\0", b"\xff" * 8, b"\1\0\0\0" + (FRAME_MAX + 1).to_bytes(4, "big")])
def test_nonsense(header: bytes) -> None:
    with pytest.raises(Corrupt):
        list(Decoder().feed(header))


def test_control() -> None:
    (frame,) = Decoder().feed(encode_control(resize=[1, 2]))
    assert frame.control() == {"resize": [1, 2]}
    for data in (b"", b"[]", b"\xff", b"{", b'"\xff"', b"3"):
        with pytest.raises(Corrupt):
            Frame(Stream.CONTROL, data).control()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x-json.log"


def texts(path: Path) -> list[tuple[str, bytes]]:
    return [(record.stream, record.data) for record in past_records(path)]


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


def record(number: int) -> LogRecord:
    return LogRecord("stdout", b"%d" % number, float(number))


@pytest.mark.parametrize(
    ("tail", "since", "until", "numbers"),
    [(None, None, None, [0, 1, 2, 3]), (2, None, None, [2, 3]), (0, None, None, []), (-1, None, None, []),
     (None, 2.0, None, [2, 3]), (None, None, 1.0, [0, 1]), (1, None, 1.0, [1]), (9, 1.0, 2.0, [1, 2])],
)  # fmt: skip
def test_select(tail: int | None, since: float | None, until: float | None, numbers: list[int]) -> None:
    assert [int(r.data) for r in select(map(record, range(4)), tail, since, until)] == numbers


def test_lines() -> None:
    line = b'{"log":"x","stream":"stderr","time":"2024-01-01T00:00:00.123456789Z"}'
    parsed = parse_line(line)
    assert parsed is not None
    assert parsed.stream == "stderr"
    assert parsed.time == datetime.fromisoformat("2024-01-01T00:00:00.123456+00:00").timestamp()
    for end in range(len(line)):
        assert parse_line(line[:end]) is None
    assert parse_line(line.replace(b"2024", b"x")) is None
    assert parse_line(b"\xff") is None


async def followed(path: Path, count: int, act: object, tail: int | None = None) -> list[bytes]:
    got: list[bytes] = []
    alive = True

    async def follow() -> None:
        async for one in follow_records(path, tail, None, None, lambda: alive):
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

    assert await followed(path, 6, act, tail=1) == [b"last\n", *(b"%d\n" % n for n in range(5))]
    log.close()


async def test_follow_over_rotation(path: Path) -> None:
    log = LogFile(path, 400, 3)
    for number in range(6):
        log.write(1, b"%d\n" % number)

    async def act() -> None:
        for number in range(6, 30):
            log.write(1, b"%d\n" % number)
            await trio.sleep(0.005)

    assert await followed(path, 30, act) == [b"%d\n" % n for n in range(30)]
    log.close()


async def test_follow_ends_when_nobody_writes(path: Path) -> None:
    log = LogFile(path, 0, 1)
    log.write(1, b"x\n")
    log.close()
    with trio.fail_after(2):
        assert [r.data async for r in follow_records(path, None, None, None, lambda: False)] == [b"x\n"]
