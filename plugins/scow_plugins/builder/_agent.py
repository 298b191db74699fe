"""`RUN --mount=type=ssh`: the user's SSH agent, lent to one step.

The step gets a socket of ours. Of what it asks, only "which keys are there" and "sign this" go on to the agent; keys
can't be added, taken away or locked from inside, and nothing else of this machine can be reached that way
(draft-miller-ssh-agent, section 3).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from scow.api import NotFound
from scow_plugins.builder._plan import first_error

REQUEST_IDENTITIES: Final = 11
SIGN_REQUEST: Final = 13
_ALLOWED: Final = frozenset((REQUEST_IDENTITIES, SIGN_REQUEST))
#: SSH_AGENT_FAILURE, as a whole message.
FAILURE: Final = b"\0\0\0\1\5"
#: The longest message that OpenSSH's agent takes.
LONGEST: Final = 256 * 1024
#: Connections of one step at a time; more wait.
_CONNECTIONS: Final = 16
_LENGTH: Final = struct.Struct(">I")
_BROKEN: Final = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Messages:
    """Cuts a stream into messages. Pure."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Whole messages, with their length before them. Raises ValueError for one that is too long or empty."""
        self._buffer += data
        found = []
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if not 0 < length <= LONGEST:
                raise ValueError(length)
            if len(self._buffer) < _LENGTH.size + length:
                break
            found.append(self._buffer[: _LENGTH.size + length])
            self._buffer = self._buffer[_LENGTH.size + length :]
        return found


def allowed(message: bytes) -> bool:
    """Whether a message may go on to the agent."""
    return message[_LENGTH.size] in _ALLOWED


@asynccontextmanager
async def lent(agent: str, directory: Path, *, uid: int, gid: int, mode: int) -> AsyncIterator[Path]:
    """A socket in a directory of ours that leads to an agent, for the block's time. Raises NotFound."""
    try:
        await (await trio.open_unix_socket(agent)).aclose()
    except OSError as error:
        raise NotFound(
            f"no SSH agent answers at {agent}: {error.strerror}", hint="start one: eval $(ssh-agent); ssh-add"
        ) from None
    path, listener = _listen(directory, uid, gid, mode)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, listener, agent)
            yield path
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise first_error(group) from None
    finally:
        listener.close()


def _listen(directory: Path, uid: int, gid: int, mode: int) -> tuple[Path, trio.socket.SocketType]:
    path = directory / "agent"
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A path may be longer than a socket's name can be.
        raw.bind(f"/proc/self/fd/{fd}/agent")
        os.chown(path, uid, gid)
        os.chmod(path, mode)
        raw.listen(_CONNECTIONS)
    except BaseException:
        raw.close()
        raise
    finally:
        os.close(fd)
    return path, trio.socket.from_stdlib_socket(raw)


async def _serve(listener: trio.socket.SocketType, agent: str) -> None:
    limit = trio.CapacityLimiter(_CONNECTIONS)
    async with trio.open_nursery() as nursery:
        while True:
            connection, _ = await listener.accept()
            nursery.start_soon(_connection, trio.SocketStream(connection), agent, limit)


async def _connection(stream: trio.SocketStream, agent: str, limit: trio.CapacityLimiter) -> None:
    async with stream, limit:
        with suppress(*_BROKEN, ValueError):
            async with await trio.open_unix_socket(agent) as behind:
                await _relay(stream, behind)


async def _relay(stream: trio.SocketStream, behind: trio.SocketStream) -> None:
    """Question by question, as the protocol has it."""
    asked, answered = Messages(), Messages()
    while data := await stream.receive_some():
        for message in asked.feed(data):
            if not allowed(message):
                await stream.send_all(FAILURE)
                continue
            await behind.send_all(message)
            await stream.send_all(await _answer(behind, answered))


async def _answer(behind: trio.SocketStream, answered: Messages) -> bytes:
    while data := await behind.receive_some():
        if messages := answered.feed(data):
            return messages[0]
    raise trio.BrokenResourceError
