"""A conversation with a process through its supervisor's socket."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import trio

from scow.engine.types import Output
from scow.errors import Conflict, Internal, error_of
from scow.model.process import ExitStatus
from scow.supervisor.frames import Decoder, Frame, Stream, encode, encode_control
from scow.supervisor.protocol import Order, socket_address

_CHUNK = 64 * 1024
_STREAMS = {Stream.STDOUT: "stdout", Stream.STDERR: "stderr"}


class Conversation:
    """See `scow.engine.facade.Session`; one reader at a time, any number of writers."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._decoder = Decoder()
        self._frames: list[Frame] = []
        self._status: ExitStatus | None = None
        self._sending = trio.Lock()
        self.answer: dict[str, Any] = {}

    async def started(self) -> None:
        """Wait until the process runs. Raises what kept it from running."""
        while True:
            frame = await self._next()
            if frame is None:
                raise Internal("the container's supervisor ended without a word", hint="see `scow events --since 1m`")
            if frame.stream is Stream.CONTROL and "started" in self._control(frame):
                return

    async def output(self) -> AsyncIterator[Output]:
        """What the process writes, until it ends."""
        while self._status is None and (frame := await self._next()) is not None:
            if frame.stream is Stream.CONTROL:
                self._control(frame)
            elif frame.stream in _STREAMS:
                yield Output(_STREAMS[frame.stream], frame.data)  # type: ignore[arg-type]

    async def wait(self) -> ExitStatus:
        """The process's end. Raises Internal when its supervisor was killed."""
        async for _ in self.output():
            pass
        if self._status is None:
            raise Internal("the container's supervisor was killed")
        return self._status

    async def answered(self) -> dict[str, Any]:
        """The answer to an order. Raises what the order raised."""
        while not self.answer and (frame := await self._next()) is not None:
            message = self._control(frame) if frame.stream is Stream.CONTROL else {}
            if "answer" in message:
                return dict(message["answer"])
        raise Conflict("the container has ended")

    async def send(self, data: bytes) -> None:
        """Write to the process's standard input."""
        if data:
            await self._send(encode(Stream.STDIN, data))

    async def send_eof(self) -> None:
        """End the process's standard input."""
        await self._send(encode(Stream.STDIN, b""))

    async def resize(self, rows: int, columns: int) -> None:
        """Set the size of the process's terminal."""
        await self._send(encode_control(resize=[rows, columns]))

    async def signal(self, number: int) -> None:
        """Send the process a signal."""
        await self._send(encode_control(signal=number))

    async def order(self, order: Order) -> None:
        """Say what the conversation is about; the first message."""
        await self._send(encode(Stream.CONTROL, msgspec.json.encode(order)))

    async def _send(self, data: bytes) -> None:
        async with self._sending:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the process has ended; its reader will say how

    async def _next(self) -> Frame | None:
        while not self._frames:
            try:
                data = await self._stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not data:
                return None
            self._frames.extend(self._decoder.feed(data))
        return self._frames.pop(0)

    def _control(self, frame: Frame) -> dict[str, Any]:
        message = frame.control()
        if (failed := message.get("failed")) is not None:
            raise error_of(failed["kind"], failed["message"], failed.get("hint"))
        if (exited := message.get("exited")) is not None:
            self._status = msgspec.convert(exited, type=ExitStatus)
        return message


@asynccontextmanager
async def conversing(stream: trio.SocketStream) -> AsyncIterator[Conversation]:
    """A conversation over a connected stream; closed at the end."""
    async with stream:
        yield Conversation(stream)


async def connect(rundir: Path) -> trio.SocketStream | None:
    """A connection to a container's supervisor; None when it has none."""
    try:
        directory = os.open(rundir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    sock = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(socket_address(directory))
    except OSError:
        sock.close()
        return None
    finally:
        os.close(directory)
    return trio.SocketStream(sock)
