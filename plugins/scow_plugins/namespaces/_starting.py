"""From clone3(2) until the command runs, as the supervisor sees it.

A process that joins a container is made in two steps (see _stub.py): our child, outside of the PID namespace, and its
copy inside, which is our child as well (CLONE_PARENT) and the one that stays. The copy waits for GO, so that no
command ever runs that we don't know; and it keeps our child's process group until then, so that we can find it also
when our child is killed before it could tell.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from dataclasses import dataclass

import trio

from scow.api.aio import cleanup
from scow.api.linux import Namespace, Prctl, all_signals_blocked, clone, prctl, reap
from scow_plugins.namespaces._child import First, Job, Later, child_main
from scow_plugins.namespaces._errors import explain
from scow_plugins.namespaces._line import Line
from scow_plugins.namespaces._process import Child

__all__ = ["Starting", "start"]

#: Seconds after which an undo step gives up.
_PATIENCE = 10.0
_TRIES = 5000
_NEW = Namespace.MOUNT | Namespace.PID | Namespace.UTS | Namespace.IPC


@dataclass(slots=True, eq=False)
class Starting:
    """A process that isn't its command yet. To be finished. `inside` is the copy, once we know of it.

    `admit` gets the copy's pid before it goes on.
    """

    child: Child
    line: Line
    joins: bool
    command: str
    admit: Callable[[int], None] | None = None
    inside: Child | None = None

    async def finish(self) -> Child:
        """Wait until the command runs: gives the process that runs it.

        Raises the ScowError that the child reports. A process that was to join a container is gone then.
        """
        try:
            await self._listen()
            if self.line.failure is not None:
                raise self.line.failure
        except BaseException:
            if self.joins:
                with cleanup(_PATIENCE, f"exec {self.command!r}"):
                    await self._abandon()
            raise
        finally:
            self.line.close()
        return self.inside or self.child

    async def _listen(self) -> None:
        # Not to the line alone: who has got a copy of its other end could keep us waiting.
        with select.epoll() as ready:
            ready.register(self.line, select.EPOLLIN)
            ready.register(self.child.pidfd, select.EPOLLIN)
            going = True
            while going:
                await trio.lowlevel.wait_readable(ready.fileno())
                last = self.inside or self.child
                ended = any(fd == last.pidfd for fd, _ in ready.poll(0))
                going = self.line.read(self.child.pid, self.command) and not ended
                if self.line.successor is not None and self.inside is None:
                    self.inside = _known(self.line.successor)
                    ready.unregister(self.child.pidfd)
                    ready.register(self.inside.pidfd, select.EPOLLIN)
                    self._greet(self.inside.pid)
                    going = True
        (self.inside or self.child).console = self.line.take_console()
        if self.inside is not None and not self.child.close_if_ended():
            await self.child.end()  # not before: its pid tells who speaks

    def _greet(self, pid: int) -> None:
        if self.admit is not None:
            try:
                self.admit(pid)
            except OSError as error:
                raise explain(error, "can't put the process into the container's control group") from None
        with contextlib.suppress(OSError):  # it has ended already
            self.line.go()

    async def _abandon(self) -> None:
        """Leave no process behind: not our child, and not the copy inside, whether we have heard of it or not."""
        if self.child.pidfd >= 0 and not self.child.ended:
            self.child.signal(signal.SIGKILL)
            await trio.lowlevel.wait_readable(self.child.pidfd)
            self.line.read(self.child.pid, self.command)
        if self.inside is None and self.line.successor is not None:
            self.inside = _known(self.line.successor)
        if self.inside is not None:
            await self.inside.end()
            await self.child.end()
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        await self.child.end()
        await _reap_group(self.child.pid)


def _known(pid: int) -> Child:
    """A child of ours that nobody has waited for, so that its number is still its own."""
    return Child(pid, os.pidfd_open(pid))


async def _reap_group(group: int) -> None:
    """Collect our child in a process group. What is in it keeps the number from being anybody else's."""
    for _ in range(_TRIES):
        if _reaped(group):
            return
        await trio.sleep(0.001)


def _reaped(group: int) -> bool:
    try:
        return os.waitid(os.P_PGID, group, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return True


def start(job: Job, way: First | Later, cgroup: int | None, settle: Callable[[], None]) -> Starting:
    """Make the child, in a control group of version 2 (a descriptor), and let it go on when `settle` has returned.

    Raises ScowError; then there is no child.
    """
    line = Line()
    try:
        pid, pidfd = _clone(job, way, cgroup, line)
        line.theirs.close()
        try:
            settle()
            line.go()
        except BaseException:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            reap(pidfd)
            os.close(pidfd)
            raise
    except OSError as error:
        line.close()
        raise explain(error, "can't make the container's control groups") from None
    except BaseException:
        line.close()
        raise
    return Starting(Child(pid, pidfd), line, isinstance(way, Later), job.process.args[0])


def _clone(job: Job, way: First | Later, cgroup: int | None, line: Line) -> tuple[int, int]:
    """Both ways the child has this process's PID namespace, or one in which there is nobody else yet."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel would throw the exit status away
    # The child changes to the container's user, who may be somebody on the host as well.
    before = prctl(Prctl.GET_DUMPABLE)
    prctl(Prctl.SET_DUMPABLE, 0)
    try:
        with all_signals_blocked():
            pid, pidfd = clone(_NEW if isinstance(way, First) else 0, cgroup=cgroup)
            if pid == 0:
                line.close_ours()
                child_main(job, way, line.theirs)
    except OSError as error:
        raise explain(error, "can't make a process") from None
    finally:
        prctl(Prctl.SET_DUMPABLE, min(before, 1))
    return pid, pidfd
