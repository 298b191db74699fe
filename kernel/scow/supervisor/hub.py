"""Where a container's output goes to the log and to every attached client, and input comes from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Set

import trio

from scow.keeper.logfile import LogFile
from scow.supervisor.frames import Frame, Stream, encode, encode_control

_CHUNK = 64 * 1024


class Client:
    """One connection. What can't be sent any more is dropped: a client that left must not stop the container."""

    def __init__(self, stream: trio.abc.SendStream) -> None:
        self._stream = stream
        self._lock = trio.Lock()
        self.gone = False

    async def send(self, data: bytes) -> None:
        """Send a frame; waits for a slow client."""
        async with self._lock:
            if self.gone:
                return
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.gone = True

    async def tell(self, **message: object) -> None:
        """Send a control message."""
        await self.send(encode_control(**message))


async def tell_all(clients: Set[Client], **message: object) -> None:
    """Tell everybody, also those who come while it is being told; the set may change at any time."""
    told: set[Client] = set()
    while waiting := clients - told:
        for client in waiting:
            await client.tell(**message)
        told |= waiting


class Hub:
    """One process's output and input."""

    def __init__(self, log: LogFile | None = None) -> None:
        self._log = log
        self._clients: set[Client] = set()
        self._stdin: trio.lowlevel.FdStream | None = None
        self._terminal = False
        self._ended: Callable[[], None] | None = None
        self._feeding = trio.Lock()
        #: The descriptors that are being read, by stream.
        self.sources: dict[Stream, int] = {}

    @property
    def stdin(self) -> int | None:
        """The writing end of the process's standard input, while it is open."""
        return None if self._stdin is None else self._stdin.fileno()

    def attach(self, client: Client) -> None:
        self._clients.add(client)

    def detach(self, client: Client) -> None:
        self._clients.discard(client)

    def take_stdin(self, fd: int, ended: Callable[[], None] | None = None, *, terminal: bool = False) -> None:
        """Own the writing end of the process's standard input; `ended` is called when it has been closed.

        That of a `terminal` has no end that a client could say: others may type, now or later.
        """
        self._stdin = trio.lowlevel.FdStream(fd)
        self._ended = ended
        self._terminal = terminal

    async def pump(self, fd: int, stream: Stream) -> None:
        """Read a descriptor (owned from now on) to its end; everything goes to the log and to all clients."""
        self.sources[stream] = fd
        try:
            async with trio.lowlevel.FdStream(fd) as source:
                while data := await _received(source):
                    if self._log is not None:
                        self._log.write(stream, data)
                    if self._clients:
                        await self._send(encode(stream, data))
        finally:
            del self.sources[stream]
            if self._log is not None:
                self._log.flush(stream)  # a last line without a line break

    async def _send(self, frame: bytes) -> None:
        for client in list(self._clients):
            await client.send(frame)
            if client.gone:
                self.detach(client)

    async def feed(self, frame: Frame) -> None:
        """A client's input; an empty frame ends it."""
        if self._stdin is None:
            return
        if not frame.data:
            if not self._terminal:
                await self.end_stdin()
            return
        try:
            async with self._feeding:  # several clients may be attached
                if self._stdin is not None:
                    await self._stdin.send_all(frame.data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it doesn't read any more

    async def end_stdin(self) -> None:
        """Close the process's standard input."""
        if self._stdin is not None:
            stream, self._stdin = self._stdin, None
            await stream.aclose()
            if self._ended is not None:
                self._ended()


async def _received(source: trio.lowlevel.FdStream) -> bytes:
    """The next bytes; none at the end. A terminal whose last user has closed it reads as EIO."""
    try:
        return bytes(await source.receive_some(_CHUNK))
    except trio.BrokenResourceError:
        return b""


class Pipes:
    """The pipes between a supervisor and a process: the process's ends until it has started, then ours only."""

    def __init__(self, *, stdin: bool) -> None:
        self.stdin: int | None = None
        self.stdin_writer: int | None = None
        if stdin:
            self.stdin, self.stdin_writer = os.pipe2(os.O_CLOEXEC)
        self.stdout_reader, self.stdout = os.pipe2(os.O_CLOEXEC)
        self.stderr_reader, self.stderr = os.pipe2(os.O_CLOEXEC)

    def close_inner(self) -> None:
        """Close the process's ends: it has its own copies."""
        for fd in (self.stdin, self.stdout, self.stderr):
            if fd is not None:
                os.close(fd)

    def close_all(self) -> None:
        """Close everything: the process didn't start."""
        self.close_inner()
        for fd in (self.stdin_writer, self.stdout_reader, self.stderr_reader):
            if fd is not None:
                os.close(fd)
