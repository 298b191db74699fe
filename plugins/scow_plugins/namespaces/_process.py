"""A running process, as the supervisor holds it: started, waited for, signalled, and at the end killed."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

import trio

from scow.api import ExitStatus, Internal, Invalid, ScowError
from scow.api.linux import Namespace, Prctl, all_signals_blocked, clone, prctl, reap, setns
from scow_plugins.namespaces._cgroups.group import Group
from scow_plugins.namespaces._child import First, Job, Later, child_main
from scow_plugins.namespaces._errors import explain
from scow_plugins.namespaces._protocol import GO, LARGEST, TERMINAL, decode_failure
from scow_plugins.namespaces._terminal import resize

__all__ = ["Child", "start", "started"]

_NEW = Namespace.MOUNT | Namespace.PID | Namespace.UTS | Namespace.IPC


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

    def close(self) -> None:
        """Close the descriptors."""
        trio.lowlevel.notify_closing(self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self.console is not None:
            trio.lowlevel.notify_closing(self.console)
            os.close(self.console)
            self.console = None


def start(job: Job, way: First | Later, cgroup: int | None, settle: Callable[[], None]) -> tuple[Child, socket.socket]:
    """Make the child, in a control group of version 2 (a descriptor), and let it go on when `settle` has returned.

    Gives the child and our end of the line to it. Raises ScowError; then there is no child.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            pid, pidfd = _clone(job, way, cgroup, (ours, theirs))
        try:
            settle()
            ours.send(GO)
        except BaseException:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            reap(pidfd)
            os.close(pidfd)
            raise
    except OSError as error:
        ours.close()
        raise explain(error, "can't make the container's control groups") from None
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return Child(pid, pidfd), ours


def _clone(
    job: Job, way: First | Later, cgroup: int | None, line: tuple[socket.socket, socket.socket]
) -> tuple[int, int]:
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel would throw the exit status away
    # Whoever looks from inside the container must not get at the interpreter's memory and descriptors.
    before = prctl(Prctl.GET_DUMPABLE)
    prctl(Prctl.SET_DUMPABLE, 0)
    try:
        with all_signals_blocked():
            if isinstance(way, First):
                pid, pidfd = clone(_NEW, cgroup=cgroup)
            else:
                pid, pidfd = _clone_into(way.init, cgroup)
            if pid == 0:
                line[0].close()
                child_main(job, way, line[1])
    except OSError as error:
        raise explain(error, "can't make a process") from None
    finally:
        prctl(Prctl.SET_DUMPABLE, min(before, 1))
    return pid, pidfd


def _clone_into(init: int, cgroup: int | None) -> tuple[int, int]:
    """A child in the PID namespace of another process. No await in here: our own next child would land there too."""
    home = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(init, Namespace.PID)
        pid, pidfd = clone(cgroup=cgroup)
        if pid:
            setns(home, Namespace.PID)
    finally:
        os.close(home)
    return pid, pidfd


async def started(child: Child, line: socket.socket, command: str) -> None:
    """Wait until the child has become its command. Raises the ScowError that the child reports."""
    failure: ScowError | None = None
    while True:
        await trio.lowlevel.wait_readable(line)
        record, descriptors, _, _ = socket.recv_fds(line, LARGEST, 1)
        if record == TERMINAL and descriptors:
            child.console = descriptors[0]
            os.set_inheritable(child.console, False)
            os.set_blocking(child.console, False)
        elif not record:
            break
        else:
            failure = failure or decode_failure(record, command)
    if failure is not None:
        raise failure
