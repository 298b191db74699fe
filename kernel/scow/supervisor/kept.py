"""A supervisor that takes a container over from its keeper: what it is handed, and what the two say to each other."""

from __future__ import annotations

import marshal
import os
import socket
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from scow.errors import Internal
from scow.keeper import keep
from scow.model.process import ExitStatus

#: Seconds that the keeper may take to hand over.
_PATIENCE: Final = 5.0


@dataclass(slots=True)
class Kept:
    """A container that was handed over. The descriptors are ours; those that there aren't are missing in `fds`."""

    line: socket.socket
    pid: int
    fds: dict[str, int]
    #: What has come of each stream since its last line break.
    rest: dict[int, bytes]
    #: Seconds that the last pause before a restart took.
    delay: float
    terminate: bool = False
    _status: ExitStatus | None = None
    _ended: trio.Event = field(default_factory=trio.Event)
    _terminated: trio.Event = field(default_factory=trio.Event)

    async def wait(self) -> ExitStatus:
        """The end of the container's first process, as its parent saw it."""
        await self._ended.wait()
        assert self._status is not None
        return self._status

    async def terminated(self) -> None:
        """Wait until the keeper is asked to end (SIGTERM)."""
        if not self.terminate:
            await self._terminated.wait()

    async def listen(self) -> None:
        """Take the keeper's messages until it says that the container has ended."""
        stream = trio.socket.from_stdlib_socket(self.line)
        while self._status is None:
            said = await stream.recv(keep.MESSAGE_MAX)
            if not said:
                # Nobody else can tell how the process ends. Without us, nobody owns the container, and the next
                # command reclaims it.
                os._exit(1)
            self._take(marshal.loads(said))

    def _take(self, message: dict[str, Any]) -> None:
        if message.get("terminate"):
            self.terminate = True
            self._terminated.set()
        if (exited := message.get("exited")) is not None:
            self._status = ExitStatus(code=exited[0], signal=exited[1])
            self._ended.set()

    def over(self) -> None:
        """Everything is ours now; the keeper ends, and lets go of what it held."""
        self._say({"over": True})
        self.line.setblocking(True)
        self.line.settimeout(_PATIENCE)
        try:
            while self.line.recv(keep.MESSAGE_MAX):
                pass
        except OSError:
            pass
        self.line.close()

    def close_stdin(self) -> None:
        """The process's standard input has ended: the keeper must not hold it open."""
        if self._status is None:
            self._say({"closed": "stdin"})

    def go_back(self, rest: dict[int, bytearray]) -> None:
        """Leave the container to the keeper. Doesn't return."""
        self._say({"back": {stream: bytes(data) for stream, data in rest.items()}})
        os._exit(0)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self.line.send(marshal.dumps(message, keep.FORMAT))
        except OSError:
            os._exit(1)


def receive(line: socket.socket) -> Kept:
    """Take a container over. Raises Internal when the keeper speaks another version, or not at all."""
    line.settimeout(_PATIENCE)
    try:
        data, fds, _, _ = socket.recv_fds(line, keep.MESSAGE_MAX, len(keep.NAMES), socket.MSG_CMSG_CLOEXEC)
        message = marshal.loads(data)
    except (OSError, EOFError, ValueError) as error:
        raise Internal(f"the container's keeper can't be understood: {error}") from None
    if message.get("version") != keep.VERSION or len(fds) != len(message["names"]):
        raise Internal("the container's keeper is of another version")
    line.setblocking(False)
    kept = Kept(line, message["pid"], dict(zip(message["names"], fds, strict=True)), message["rest"], message["delay"])
    kept._take({"terminate": message["terminate"], "exited": message["exited"]})
    return kept
