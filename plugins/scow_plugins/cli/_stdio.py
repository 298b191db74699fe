"""Reading and writing the user's descriptors inside the event loop, without touching flags that others share.

O_NONBLOCK belongs to the open file, which the user's shell has too; so pipes and terminals are opened anew through
/proc for writing, and reads wait until there is something.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Final, TypeVar

import trio

from scow_plugins.cli._cli import StdoutClosed

_CHUNK: Final = 65536
T = TypeVar("T")


@asynccontextmanager
async def ended(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """A stream that is closed at the end of the block, if it can be: a generator left half-way is a leak."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


class Writer:
    """Writes all bytes to a descriptor; a slow reader holds up the caller only, never the event loop."""

    def __init__(self, descriptor: int) -> None:
        self._socket: socket.socket | None = None
        self._own = _reopened(descriptor)
        self._fd = descriptor if self._own is None else self._own
        self._send: Callable[[memoryview], int] = self._plain
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                self._socket = socket.socket(fileno=os.dup(descriptor))
                self._send = self._to_socket
        except OSError:
            pass  # closed: the first write says so

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._own is not None:
            os.close(self._own)
        if self._socket is not None:
            self._socket.close()

    async def write(self, data: bytes) -> None:
        """Write everything. Raises StdoutClosed when nobody reads any more."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._fd)
            except (BrokenPipeError, ConnectionResetError):
                raise StdoutClosed from None
        await trio.lowlevel.checkpoint()

    def _plain(self, view: memoryview) -> int:
        return os.write(self._fd, view)

    def _to_socket(self, view: memoryview) -> int:
        assert self._socket is not None
        return self._socket.send(view, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _reopened(descriptor: int) -> int | None:
    """The same pipe or terminal as an open file of our own, non-blocking; None for anything else."""
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISFIFO(mode) and not os.isatty(descriptor):
            return None  # a regular file has its position in the shared open file
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return None


class Reader:
    """Reads a descriptor of any kind: terminals, pipes and sockets when they are ready, all else in a thread."""

    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        self._pollable = True

    async def read(self) -> bytes:
        """Some bytes; none at the end."""
        if self._pollable:
            try:
                return await self._when_ready()
            except PermissionError:
                self._pollable = False  # epoll refuses regular files, /dev/null, …
        # Not abandoned when cancelled: a thread left behind would read from whatever has the number next.
        return await trio.to_thread.run_sync(_read, self._fd)

    async def _when_ready(self) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                return _read(self._fd)
            except BlockingIOError:
                continue


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except BlockingIOError:
        raise
    except OSError:
        return b""  # a terminal that hung up, a descriptor that can't be read: the input has ended
