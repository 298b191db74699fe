"""The fuzzer finds what it should find; and a short run of it, always the same one, finds nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fuzz.all import TARGETS
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Target
from tests.fuzz.watch import fuzz, replay

from scow.api import Corrupt, Internal

#: Inputs for each target; the first ones are the seeds as they are.
_COUNT = 150
CHECKOUT = Path(__file__).parents[3]


def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    """In a process of its own: this one has threads, and should keep its memory."""
    command = [sys.executable, "-m", "tests.fuzz", "--count", str(_COUNT), "--seed", "0", "--keep", str(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if "different outcomes" in line]
    assert len(told) == len(TARGETS)
    # Not all refused for the same reason at the door.
    assert all(int(line.split()[3]) > 2 for line in told), told


def _raises(data: bytes, place: Path) -> None:
    if b"\0" in data:
        raise KeyError("planted")


def _calls_it_a_bug(data: bytes, place: Path) -> None:
    if b"\0" in data:
        raise Internal("planted")


def _says_nothing(data: bytes, place: Path) -> None:
    if b"\0" in data:
        raise Corrupt(" ")


def _hangs(data: bytes, place: Path) -> None:
    if b"\0" in data:
        time.sleep(30)


def _dies(data: bytes, place: Path) -> None:
    if b"\0" in data:
        os.kill(os.getpid(), signal.SIGKILL)


def _takes_memory(data: bytes, place: Path) -> None:
    if b"\0" in data:
        bytearray(os.urandom(1 << 20) * 400)


def _takes_all(data: bytes, place: Path) -> None:
    if b"\0" in data:
        bytearray(1 << 40)


@pytest.mark.parametrize(
    ("run", "what"),
    [
        (_raises, "KeyError: 'planted'"),
        (_calls_it_a_bug, "are called a bug: planted"),
        (_says_nothing, "no decent message"),
        (_hangs, "hangs"),
        (_dies, "ended with -9"),
        (_takes_memory, "MB of memory"),
        (_takes_all, "MemoryError"),
    ],
)
def test_what_is_wrong_is_found_and_kept(tmp_path: Path, run: Callable[[bytes, Path], None], what: str) -> None:
    target = Target("planted", (b"seed",), Mutator.data, run)
    patience = 1.0 if run is _hangs else 30.0  # for whoever else uses the machine
    (find,), _ = fuzz([target], "x", 3000, tmp_path, patience=patience)
    assert what in find.what
    assert b"\0" in find.path.read_bytes()
    assert find.path.name.startswith("planted-")
    again = replay([target], find.path, tmp_path, patience=patience)
    assert again is not None
    assert what in again.what
    (tmp_path / "planted-harmless").write_bytes(b"fine")
    assert replay([target], tmp_path / "planted-harmless", tmp_path) is None


def test_the_same_seed_gives_the_same_inputs(tmp_path: Path) -> None:
    def inputs(seed: str) -> list[bytes]:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)

        def note(data: bytes, place: Path) -> bytes:
            with log.open("ab") as file:
                file.write(data.hex().encode() + b"\n")
            return data[:1]

        assert fuzz([Target("noted", TARGETS[0].seeds, Mutator.tar, note)], seed, 30, tmp_path)[0] == []
        return log.read_bytes().splitlines()

    first = inputs("a")
    assert len(first) == 30
    assert first == inputs("a")
    assert first != inputs("b")
