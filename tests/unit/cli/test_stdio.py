"""The user's descriptors: nothing is lost, nothing of theirs is changed."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from pathlib import Path

import pytest
import trio

from scow_plugins.cli import _stdio
from scow_plugins.cli._cli import StdoutClosed, write_all
from scow_plugins.cli._stdio import Reader, Writer

DATA = bytes(range(256)) * 4096  # a megabyte: more than any pipe takes at once


def is_blocking(descriptor: int) -> bool:
    return not fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK


async def _drain(descriptor: int, pause: float = 0) -> bytes:
    got = b""
    while len(got) < len(DATA):
        await trio.lowlevel.wait_readable(descriptor)
        got += os.read(descriptor, 65536)
        await trio.sleep(pause)
    return got


async def _written(writing: int, reading: int) -> bytes:
    got = b""
    ticks = 0

    async def read() -> None:
        nonlocal got
        got = await _drain(reading, 0.005)

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await trio.sleep(0.001)

    async with trio.open_nursery() as outer:
        outer.start_soon(tick)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with Writer(writing) as writer:
                await writer.write(DATA)
        outer.cancel_scope.cancel()
    assert ticks > 10  # the loop went on while the reader was slow
    return got


async def test_a_slow_pipe() -> None:
    reading, writing = os.pipe()
    assert await _written(writing, reading) == DATA
    assert is_blocking(writing)
    os.close(reading)
    os.close(writing)


async def test_a_slow_socket() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert await _written(left.fileno(), right.fileno()) == DATA
        assert is_blocking(left.fileno())


async def test_a_pipe_that_somebody_made_non_blocking() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    assert await _written(writing, reading) == DATA
    os.close(reading)
    os.close(writing)


async def test_a_terminal() -> None:
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    assert await _written(slave, master) == DATA
    assert is_blocking(slave)
    os.close(master)
    os.close(slave)


async def test_a_file_keeps_its_position(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b", buffering=0) as file:  # noqa: ASYNC230 - a moment
        file.write(b"before ")
        with Writer(file.fileno()) as out, Writer(file.fileno()) as err:
            await out.write(b"one ")
            await err.write(b"two ")
        file.write(b"after")
    assert (tmp_path / "out").read_bytes() == b"before one two after"


async def test_a_reader_that_left() -> None:
    reading, writing = os.pipe()
    with Writer(writing) as writer:
        os.close(reading)
        with pytest.raises(StdoutClosed):
            await writer.write(b"x")
    with Writer(writing) as late, pytest.raises(StdoutClosed):
        await late.write(b"x")
    os.close(writing)


def test_write_all_waits_for_a_non_blocking_pipe() -> None:
    import threading

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    got: list[bytes] = []

    def read() -> None:
        while sum(map(len, got)) < len(DATA):
            got.append(os.read(reading, 65536))

    thread = threading.Thread(target=read)
    thread.start()
    write_all(writing, DATA)
    thread.join()
    assert b"".join(got) == DATA
    os.close(reading)
    os.close(writing)


async def test_reading_pipes() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    reader = Reader(reading)
    assert await reader.read() == b"abc"
    assert await reader.read() == b""
    assert is_blocking(reading)
    os.close(reading)


async def test_reading_files_and_null(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"abc")
    for path, content in ((tmp_path / "in", b"abc"), (Path(os.devnull), b"")):
        descriptor = os.open(path, os.O_RDONLY)
        reader = Reader(descriptor)
        assert await reader.read() == content
        assert await reader.read() == b""
        os.close(descriptor)


async def test_what_cannot_be_read_has_ended() -> None:
    master, slave = os.openpty()
    os.close(slave)
    assert await Reader(master).read() == b""
    os.close(master)
    reading, writing = os.pipe()
    os.close(writing)
    os.close(reading)
    with pytest.raises(OSError):
        os.fstat(reading)


async def test_a_cancelled_reader_leaves_nobody_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started, over = threading.Event(), threading.Event()
    read = _stdio._read

    def slow(descriptor: int) -> bytes:
        started.set()
        time.sleep(0.05)
        over.set()
        return read(descriptor)

    monkeypatch.setattr(_stdio, "_read", slow)
    (tmp_path / "file").write_bytes(b"hello")
    with (tmp_path / "file").open("rb") as file, trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Reader(file.fileno()).read)
            await trio.to_thread.run_sync(started.wait, 5)
            nursery.cancel_scope.cancel()
    assert over.is_set()  # the number may be used again from here on
    assert not scope.cancelled_caught
