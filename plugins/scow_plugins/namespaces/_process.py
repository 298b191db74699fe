"""A running process, as the supervisor holds it: started, waited for, signalled, and at the end killed."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

import trio

from scow.api import ExitStatus, Internal, Invalid
from scow.api.linux import reap
from scow_plugins.namespaces._cgroups.group import Group
from scow_plugins.namespaces._errors import explain
from scow_plugins.namespaces._terminal import resize

__all__ = ["Child"]


@dataclass(slots=True, eq=False)
class Child:
    """A child of ours: its pid, its pidfd, and the master of its terminal."""

    pid: int
    pidfd: int
    console: int | None = None
    _ended: tuple[int | None, int | None] | None = None
    _group: Group | None = None
    _first: bool = False
    _oom_killed: bool = False
    _waiting: trio.Lock | None = None

    async def wait(self) -> ExitStatus:
        """See scow.api.Process. One task at a time watches the pidfd; the others queue behind it."""
        if self._waiting is None:
            self._waiting = trio.Lock()
        async with self._waiting:
            if self._ended is None:
                await trio.lowlevel.wait_readable(self.pidfd)
                self._collect()
        return self.status()

    def _collect(self) -> None:
        self._note_end(reap(self.pidfd))

    def _note_end(self, ended: tuple[int | None, int | None]) -> None:
        self._ended = ended
        self._oom_killed = self._first and self._group is not None and self._group.oom_kills() > 0

    def status(self) -> ExitStatus:
        """How it ended; only after it has."""
        if self._ended is None:
            raise Internal("the process hasn't ended")
        code, number = self._ended
        return ExitStatus(code=code, signal=number, oom_killed=self._oom_killed)

    def belongs_to(self, group: Group, *, first: bool = False) -> None:
        """The control group of its container; the first process says at the end whether memory was short."""
        self._group, self._first = group, first

    @property
    def ended(self) -> bool:
        """Has its end been seen?"""
        return self._ended is not None

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """By the pidfd, so that nobody else is ever hit; to all of the container by its group. Raises Invalid."""
        if number not in range(1, signal.NSIG):
            raise Invalid(f"there is no signal {number}", hint=f"they go from 1 to {signal.NSIG - 1}")
        if everyone and self._group is not None and self._group.signal(number):
            return
        if self._ended is not None or self.pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass
        except OSError as error:
            raise Invalid(f"signal {number}: {error.strerror}") from None

    def resize(self, rows: int, columns: int) -> None:
        """See scow.api.Process."""
        if self.console is not None:
            try:
                resize(self.console, rows, columns)
            except OSError as error:
                raise explain(error, "can't set the terminal's size") from None

    async def end(self) -> None:
        """Kill it and wait for its end; then nothing of it is left. May be called again."""
        if self.pidfd < 0:
            return
        self.signal(signal.SIGKILL)
        await self.wait()
        self.close()

    def close_if_ended(self) -> bool:
        """As `end`, without waiting for anything: False when it is still there."""
        if os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self._collect()
        self.close()
        return True

    def close(self) -> None:
        """Close the descriptors."""
        trio.lowlevel.notify_closing(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self.console is not None:
            trio.lowlevel.notify_closing(self.console)
            os.close(self.console)
            self.console = None
