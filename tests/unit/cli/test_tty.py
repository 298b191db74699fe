"""Raw mode that is always given back, and the keys that detach."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._tty import DetachKeys, parse_keys, raw, terminal_size


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both sides of a terminal."""
    master, slave = os.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def test_raw_and_back(terminal: tuple[int, int]) -> None:
    _, slave = terminal
    before = termios.tcgetattr(slave)
    with raw(slave):
        now = termios.tcgetattr(slave)
        assert not now[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    assert termios.tcgetattr(slave) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_back_after_a_crash(terminal: tuple[int, int], error: type[BaseException]) -> None:
    _, slave = terminal
    before = termios.tcgetattr(slave)
    with pytest.raises(error), raw(slave):
        raise error
    assert termios.tcgetattr(slave) == before


def test_a_terminal_that_goes_away_is_no_error() -> None:
    master, slave = os.openpty()
    with raw(slave):
        os.close(master)
    os.close(slave)


def test_sizes(terminal: tuple[int, int], tmp_path: os.PathLike[str]) -> None:
    _, slave = terminal
    termios.tcsetwinsize(slave, (33, 99))
    assert terminal_size(slave) == (33, 99)
    with open(os.devnull) as null:
        assert terminal_size(null.fileno()) == (0, 0)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("ctrl-@,a,ctrl-]", b"\x00a\x1d"),
        ("ctrl-Z", b"\x1a"),
        ("-", b"-"),
    ],
)
def test_keys(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-1", "ab", "a,,b", "é", "ctrl-pp"])
def test_bad_keys(text: str) -> None:
    with pytest.raises(ValueError):
        parse_keys(text)


def test_held_back_until_clear() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"a\x10") == (b"a", False)
    assert keys.feed(b"b") == (b"\x10b", False)
    assert keys.feed(b"\x10\x10\x11rest") == (b"\x10", True)


KEYS = st.binary(min_size=1, max_size=4).map(lambda data: bytes(byte % 3 for byte in data))


@given(KEYS, st.lists(KEYS, max_size=12))
def test_against_the_simple_way(keys: bytes, pieces: list[bytes]) -> None:
    typed = b"".join(pieces)
    end = typed.find(keys)
    matcher, out, detached = DetachKeys(keys), b"", False
    for piece in pieces:
        passed, detached = matcher.feed(piece)
        out += passed
        if detached:
            break
    assert detached == (end >= 0)
    if detached:
        assert out == typed[:end]
    else:
        held = typed[len(out) :]
        assert typed.startswith(out)
        assert keys.startswith(held)
        assert held != keys


def test_what_strangers_say_moves_no_cursor() -> None:
    """Labels, histories, messages: escaped on a terminal, and as they are in a pipe."""
    said = "\x1b]0;owned\x07a\tb\r\x9b2J\u202ec ü 日本 \udc9b"
    master, slave = os.openpty()
    reader, writer = os.pipe()
    Cli(stdout=slave, stderr=slave).out(said)
    Cli(stdout=slave, stderr=slave).err(said)
    Cli(stdout=writer, stderr=writer).out(said)
    shown = "\\x1b]0;owned\\x07a\tb\\x0d\\x9b2J\\u202ec ü 日本 \\x9b"
    seen = b""
    while seen.count(b"\n") < 2:  # each line may come by itself
        seen += os.read(master, 1000)
    assert seen.decode().replace("\r\n", "\n").expandtabs() == (shown + "\n").expandtabs() * 2
    assert os.read(reader, 1000) == said.encode(errors="surrogateescape") + b"\n"
    for each in (master, slave, reader, writer):
        os.close(each)
