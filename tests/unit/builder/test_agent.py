"""An agent that is lent to a step: what goes on to it, and what doesn't."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from scow.api import NotFound
from scow_plugins.builder._agent import FAILURE, LONGEST, Messages, allowed, lent


def message(kind: int, body: bytes = b"") -> bytes:
    return struct.pack(">IB", len(body) + 1, kind) + body


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=8), st.integers(1, 7))
def test_a_stream_is_cut_wherever_it_is(bodies: list[bytes], size: int) -> None:
    whole = [struct.pack(">I", len(body)) + body for body in bodies]
    stream = b"".join(whole)
    messages = Messages()
    found = [each for at in range(0, len(stream), size) for each in messages.feed(stream[at : at + size])]
    assert found == whole


@pytest.mark.parametrize("length", [0, LONGEST + 1, 0xFFFFFFFF])
def test_lengths_that_are_none(length: int) -> None:
    with pytest.raises(ValueError):
        Messages().feed(struct.pack(">I", length))


def test_only_what_uses_keys() -> None:
    assert [kind for kind in range(256) if allowed(message(kind))] == [11, 13]


async def test_the_agent_hears_nothing_else(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def agent(stream: trio.SocketStream) -> None:
        async with stream:
            messages = Messages()
            while data := await stream.receive_some():
                for each in messages.feed(data):
                    heard.append(each)
                    await stream.send_all(message(12, b"keys"))

    place = tmp_path / "real"
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(place))
    sock.listen()
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, agent, [trio.SocketListener(sock)])
        async with lent(str(place), deep, uid=os.getuid(), gid=os.getgid(), mode=0o600) as path:
            assert path.stat().st_mode & 0o777 == 0o600
            fd = os.open(deep, os.O_PATH)
            async with await trio.open_unix_socket(f"/proc/self/fd/{fd}/agent") as stream:
                # Taking all keys away, then asking for them.
                await stream.send_all(message(19) + message(11))
                answer = b""
                while len(answer) < len(FAILURE) + 9:
                    answer += await stream.receive_some()
                assert answer == FAILURE + message(12, b"keys")
                await stream.send_all(struct.pack(">I", LONGEST + 1))
                assert await stream.receive_some() == b""
            os.close(fd)
        nursery.cancel_scope.cancel()
    assert heard == [message(11)]


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no SSH agent answers"):
        async with lent(str(tmp_path / "none"), tmp_path, uid=0, gid=0, mode=0o600):
            pass


async def test_errors_of_the_step_stay_what_they_are(tmp_path: Path) -> None:
    sock = trio.socket.socket(trio.socket.AF_UNIX)
    await sock.bind(str(tmp_path / "real"))
    sock.listen()
    with pytest.raises(NotFound, match="of the step"):
        async with lent(str(tmp_path / "real"), tmp_path, uid=os.getuid(), gid=os.getgid(), mode=0o600):
            raise NotFound("of the step")
    sock.close()
