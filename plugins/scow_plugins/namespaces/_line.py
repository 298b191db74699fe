"""The supervisor's end of the line to a starting process: who speaks is told by the kernel, and believed accordingly.

The child that the supervisor has made is outside of the container's PID namespace (or the first in it), where the
container has no hands. What comes from any other process may come from the container: somebody with CAP_SYS_PTRACE
has taken over the copy inside, or has got its descriptor. SO_PASSCRED (unix(7)) writes the sender's pid on each
record; to send another one's takes CAP_SYS_ADMIN, and a process that the sender can see.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterable
from typing import Final

from scow.api import Denied, ScowError
from scow_plugins.namespaces._protocol import (
    GO,
    LARGEST,
    TERMINAL,
    decode_failure,
    decode_pid,
    decode_stranger,
    is_crowded,
)

__all__ = ["Line"]

_CREDENTIALS: Final = struct.Struct("iII")
_ANCILLARY: Final = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4)
#: A terminal, a pid and a failure are the most that is said.
_MOST: Final = 8


class Line:
    """Our end; `theirs` is for the child. Closes with `close`."""

    def __init__(self) -> None:
        self._socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._records = 0
        #: The pid of the process that runs the command, if that isn't the child itself.
        self.successor: int | None = None
        self.failure: ScowError | None = None
        #: Another process would have been one more than the container may have.
        self.crowded = False
        self.console: int | None = None

    def fileno(self) -> int:
        """For select.epoll."""
        return self._socket.fileno()

    def close_ours(self) -> None:
        """In the child."""
        self._socket.close()

    def close(self) -> None:
        """Both ends; a terminal that nobody has taken as well."""
        self._socket.close()
        self.theirs.close()
        if self.console is not None:
            os.close(self.console)
            self.console = None

    def go(self) -> None:
        """Let the other side go on. Raises OSError."""
        self._socket.send(GO)

    def take_console(self) -> int | None:
        """The terminal's master; the caller closes it."""
        console, self.console = self.console, None
        return console

    def read(self, child: int, command: str) -> bool:
        """Take all that is there; False when nothing more will come. `child` is the pid of our own child."""
        while True:
            try:
                record, ancillary, _, _ = self._socket.recvmsg(
                    LARGEST, _ANCILLARY, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return True
            except ConnectionResetError:  # they have ended without reading GO; said once, before what is left
                continue
            sender, descriptors = _unpack(ancillary)
            if sender is None:
                return False
            self._records += 1
            if self._records > _MOST:
                _close(descriptors)
                self.failure = self.failure or Denied(f"exec {command!r}: the container disturbs the starting process")
                return False
            self._take(record, descriptors, sender == child, command)

    def _take(self, record: bytes, descriptors: list[int], ours: bool, command: str) -> None:
        if not ours:
            _close(descriptors)
            self.failure = self.failure or decode_stranger(record, command)
        elif record == TERMINAL and len(descriptors) == 1 and self.console is None:
            os.set_blocking(descriptors[0], False)
            self.console = descriptors[0]
        elif (pid := decode_pid(record)) is not None and not descriptors:
            self.successor = self.successor or pid
        else:
            _close(descriptors)
            self.crowded = self.crowded or is_crowded(record)
            self.failure = self.failure or decode_failure(record, command)


def _unpack(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[int | None, list[int]]:
    """The sender's pid (None: the end of the file, which nobody sends) and all descriptors."""
    sender: int | None = None
    descriptors: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS and len(data) == _CREDENTIALS.size:
            sender = _CREDENTIALS.unpack(data)[0]
        elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors += (number for (number,) in struct.iter_unpack("i", data[: len(data) - len(data) % 4]))
    return sender, descriptors


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
