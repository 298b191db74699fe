"""Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import os
import termios
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Digest
from scow.engine.types import Progress
from scow_plugins.cli._progress import Layer, Meter, bar

A, B = Digest.of(b"a"), Digest.of(b"b")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def meter(descriptor: int, clock: Clock, *, terminal: bool) -> Meter:
    return Meter(descriptor, terminal=terminal, begin=lambda: ["latest: Pulling from library/x"], clock=clock)


def test_plain_lines(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as file:
        shown = meter(file.fileno(), Clock(), terminal=False)
        assert not shown.begun
        for news in (
            Progress("x", None, "resolving"),
            Progress("x", A, "waiting"),
            Progress("x", B, "exists"),
            Progress("x", A, "downloading", 0, 100),
            Progress("x", A, "downloading", 50, 100),
            Progress("x", A, "downloaded", 100, 100),
            Progress("x", A, "unpacking", 10, 100),
            Progress("x", A, "complete"),
            Progress("x", A, "complete"),
        ):
            shown.update(news)
        shown.draw(last=True)
    assert (tmp_path / "out").read_text().splitlines() == [
        "latest: Pulling from library/x",
        f"{A.short}: Pulling fs layer",
        f"{B.short}: Already exists",
        f"{A.short}: Download complete",
        f"{A.short}: Pull complete",
    ]
    assert shown.begun


def test_speed_is_the_recent_one() -> None:
    layer = Layer("a", 0)
    layer.update("downloading", 0, 100_000_000, 0)
    for second in range(1, 20):
        layer.update("downloading", second * 1_000_000, 100_000_000, second)
    assert layer.speed == pytest.approx(1_000_000)
    for second in range(20, 30):
        layer.update("downloading", 19_000_000 + (second - 19) * 10_000_000, 200_000_000, second)
    assert layer.speed == pytest.approx(10_000_000, rel=0.2)


def test_a_layer_in_full() -> None:
    layer = Layer("0123456789ab", 0)
    layer.update("downloading", 0, 100_000_000, 0)
    layer.update("downloading", 50_000_000, 100_000_000, 10)
    line = layer.line(100)
    assert line.startswith("0123456789ab: Downloading [====")
    assert line.endswith("]  50MB/100MB  5MB/s")


@given(
    st.integers(0, 200), st.sampled_from(["waiting", "downloading", "unpacking", "complete"]), st.integers(0, 10**12)
)
def test_lines_fit(width: int, phase: str, current: int) -> None:
    layer = Layer("0123456789ab", 0)
    layer.update(phase, current, 10**11, 1)
    layer.update(phase, current * 2, 10**11, 3)
    assert len(layer.line(width)) <= width


@given(st.floats(-1, 3), st.integers(1, 80))
def test_bars_have_their_width(part: float, width: int) -> None:
    assert len(bar(part, width)) == width


def seen(master: int, slave: int) -> str:
    """What was written to a terminal, all of it: one read may give less (the kernel hands it over in pieces)."""
    os.write(slave, b"\0")
    read = b""
    while not read.endswith(b"\0"):
        read += os.read(master, 65536)
    return read[:-1].decode()


def test_drawing_goes_over_what_was_drawn() -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 60))
    clock = Clock()
    shown = meter(slave, clock, terminal=True)
    shown.update(Progress("x", A, "waiting"))
    shown.update(Progress("x", B, "waiting"))
    seen(master, slave)
    shown.draw()
    first = seen(master, slave)
    assert first.startswith(f"\r{A.short}: Waiting\x1b[K\r\n{B.short}: Waiting")
    shown.update(Progress("x", A, "complete"))
    shown.draw(last=True)
    second = seen(master, slave)
    assert second.startswith("\x1b[2A\r")
    assert f"{A.short}: Pull complete" in second
    os.close(master)
    os.close(slave)


def test_more_layers_than_rows() -> None:
    shown = meter(1, Clock(), terminal=True)
    shown.begun = True
    for number in range(30):
        digest = Digest.of(str(number).encode())
        shown.update(Progress("x", digest, "complete" if number < 20 else "downloading", 1, 2))
    lines = shown.lines(5, 80)
    assert len(lines) == 5
    assert lines[-1] == "20 of 30 layers complete"
    assert all("Downloading" in line for line in lines[:-1])
    assert len(shown.lines(0, 80)) == 30


def test_nobody_watches() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    meter(writing, Clock(), terminal=False).update(Progress("x", A, "waiting"))
    os.close(writing)


def test_what_lies_here_is_loaded_and_not_pulled(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as file:
        shown = Meter(file.fileno(), terminal=False, begin=list, loading=True)
        for phase in ("waiting", "downloading", "downloaded", "unpacking", "complete"):
            shown.update(Progress("x", A, phase))
    lines = ["Loading layer", "Loaded", "Load complete"]
    assert (tmp_path / "out").read_text().splitlines() == [f"{A.short}: {line}" for line in lines]


def test_nothing_is_said_of_a_place_where_all_is_known(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as file:
        shown = Meter(file.fileno(), terminal=False, begin=lambda: ["Pulling from oci:x"], late=True)
        for news in (Progress("x", None, "resolving"), Progress("x", A, "waiting"), Progress("x", A, "exists")):
            shown.update(news)
        assert not shown.begun
        assert not shown.fetched
        shown.update(Progress("x", B, "complete"))
    assert shown.begun
    assert shown.fetched
    assert (tmp_path / "out").read_text().splitlines() == ["Pulling from oci:x", f"{B.short}: Pull complete"]
