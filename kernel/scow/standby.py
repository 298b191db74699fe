"""Children of the launcher that wait for a request: they have practised, and own the memory that they will write to."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

from scow import warm
from scow.habits import Habits
from scow.practice import practise
from scow.supervisor.protocol import SuperviseRequest
from scow.sys.credentials import has_bounding

#: What they wait for, a command and its supervisor, and how many. To get ready takes as long as a short command: in a
#: loop of these one is used while the other one gets ready.
WANTED: Final = {b"cli": 2, b"supervise": 1}
#: A child that has practised for longer than this, in seconds, hangs somewhere.
_HANGING: Final = 5.0
#: By how much a child that practises is nicer than others. The rest of the machine's work goes first, but not for ever.
_LEISURE: Final = 10
_CAP_SYS_NICE: Final = 23
_READY: Final = b"r"

Fork = Callable[[Callable[[], None]], int]
Do = Callable[[socket.socket, list[bytes], list[int]], None]


class Standby(NamedTuple):
    """A child that waits for a request of its kind on a socket."""

    kind: bytes
    made: float
    pid: int
    line: socket.socket


class Standbys:
    """One for each kind, made one at a time. `fork` runs a function in a child, which does a request with `do`."""

    def __init__(self, fork: Fork, do: Do) -> None:
        self._fork = fork
        self._do = do
        self._waiting: list[Standby] = []
        self._habits: dict[bytes, Habits] = {}
        #: The last supervisor's request: they practise on its engine.
        self._last: bytes | None = None

    def settle(self) -> None:
        """The launcher's memory is as children will find it from now on."""
        self._habits = {kind: Habits() for kind in WANTED}

    def practise_on(self, request: bytes) -> None:
        """This is a supervisor's request: those to come shall be ready for one like it."""
        self._last = request

    def missing(self) -> list[bytes]:
        """The kinds of which too few wait, the scarcest first."""
        waiting = [standby.kind for standby in self._waiting]
        return sorted((kind for kind, wanted in WANTED.items() if waiting.count(kind) < wanted), key=waiting.count)

    def make(self, kind: bytes) -> None:
        """One more of a kind. Raises OSError."""
        ours, theirs = socket.socketpair()

        def stand_by() -> None:
            ours.close()
            self._wait(kind, theirs)

        with theirs:
            try:
                pid = self._fork(stand_by)
            except OSError:
                ours.close()
                raise
        self._waiting.append(Standby(kind, time.monotonic(), pid, ours))

    def take(self, kind: bytes) -> Standby | None:
        """One for a request of its kind, who doesn't wait any more; None when there is none.

        One that still practises will do: it is further than a new one would be.
        """
        for standby in self._waiting:
            if standby.kind == kind:
                self._waiting.remove(standby)
                if _is_ready(standby.line) or time.monotonic() - standby.made < _HANGING:
                    return standby
                standby.line.close()  # it ends when it comes to
                self._last = None
        return None

    def forget(self, gone: Collection[int]) -> None:
        """These processes have ended."""
        self._waiting = [standby for standby in self._waiting if standby.pid not in gone]

    def dismiss(self) -> None:
        """Let go of all: in the launcher they end by that, in a child they belong to the launcher."""
        for standby in self._waiting:
            standby.line.close()
        self._waiting.clear()

    def _wait(self, kind: bytes, line: socket.socket) -> None:
        if has_bounding(_CAP_SYS_NICE):  # else the launcher could not take it back
            os.nice(_LEISURE)
        practise(SuperviseRequest.decode(self._last) if self._last else None, lambda: _is_called(line))
        if not _is_called(line):
            self._habits[kind].take_on()
        try:
            line.sendall(_READY)
        except OSError:
            pass  # the request lies there already, and its sender has turned away
        try:
            fields, descriptors = warm.receive(line)
        except (OSError, EOFError):
            os._exit(0)  # the launcher has left
        line.close()
        self._do(socket.socket(fileno=descriptors[0]), fields, descriptors[1:])


def _is_ready(line: socket.socket) -> bool:
    try:
        return line.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == _READY
    except OSError:
        return False


def _is_called(line: socket.socket) -> bool:
    """Whether something has come, or nothing will come any more."""
    return bool(select.select([line], [], [], 0)[0])
