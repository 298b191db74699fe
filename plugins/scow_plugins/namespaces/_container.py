"""A container while it runs: entered, it has its first process; left, nothing of it is there any more."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import trio

from scow.api import Conflict, ExecRequest, Exhausted, ExitStatus, Invalid, Isolation, ProcessSpec, Stdio, Unsupported
from scow.api.aio import cleanup
from scow_plugins.namespaces._caps import capability_set
from scow_plugins.namespaces._cgroups.group import Group
from scow_plugins.namespaces._cgroups.limits import check
from scow_plugins.namespaces._child import First, Job, Later
from scow_plugins.namespaces._errors import explain
from scow_plugins.namespaces._identity import Privileges
from scow_plugins.namespaces._plan import HostDevice, HostFacts, plan
from scow_plugins.namespaces._process import Child
from scow_plugins.namespaces._seccomp.choose import choose_program
from scow_plugins.namespaces._seccomp.exempt import exempt
from scow_plugins.namespaces._starting import Starting, start
from scow_plugins.namespaces._stub import Orders, stub

__all__ = ["Running", "group_of", "held", "privileges_of"]

#: Seconds after which clean-up gives up; the journal knows what is left.
_PATIENCE = 10.0
_LONGEST_NAME = 64
#: What a container has of its own, privileged or not.
_OWN_DEVICES = ("/dev/console", "/dev/ptmx")
_OWN_DIRECTORIES = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages")


@asynccontextmanager
async def held(request: ExecRequest) -> AsyncIterator[Running]:
    """The running container (`ExecHeld`). What is wrong with the request is said before anything is done."""
    check(request.isolation.resources)
    _check(request.process, request.stdio)
    if request.isolation.init:
        raise Unsupported(
            "--init: there is no reaper to be had for the container", hint="use an image with one, as tini"
        )
    privileges = privileges_of(request.isolation)
    group = group_of(request.container, request.isolation)
    first = _first(request, group)
    entry = request.journal.hold(cgroup=group.path)
    child: Child | None = None
    try:
        starting = _start_first(request, privileges, first, group)
        child = starting.child
        child.belongs_to(group, first=True)
        await starting.finish()
        yield Running(child, group, request.container, privileges)
    finally:
        with cleanup(_PATIENCE, f"container {request.container}"):
            await _end(child, group)
            request.journal.release(entry)


def _start_first(request: ExecRequest, privileges: Privileges, first: First, group: Group) -> Starting:
    resources, privileged = request.isolation.resources, request.isolation.privileged
    try:
        group.create_unified(resources)
    except OSError as error:
        raise explain(error, "can't make the container's control group") from None
    with _job(request.process, request.stdio, privileges, group) as job, group.unified() as cgroup:
        return start(job, first, cgroup, lambda: group.create_rest(resources, privileged=privileged))


@contextmanager
def _job(
    process: ProcessSpec,
    stdio: Stdio | None,
    privileges: Privileges,
    group: Group,
    *,
    joins: bool = False,
    crowded: bool = False,
) -> Iterator[Job]:
    token = int.from_bytes(os.urandom(8))
    if privileges.seccomp is not None:
        privileges = replace(privileges, seccomp=exempt(privileges.seccomp, token, os.uname().machine))
    fd = stub(Orders(token, joins, joins and process.tty))
    try:
        yield Job(process, stdio, privileges, fd, group.entrances(crowded=crowded))
    finally:
        os.close(fd)


def _first(request: ExecRequest, group: Group) -> First:
    """Says what is wrong with the request's mounts and names. Raises Invalid, Unsupported."""
    isolation = request.isolation
    for name in (isolation.hostname, isolation.domainname):
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise Invalid(f"hostname {name!r} is too long", hint=f"{_LONGEST_NAME} bytes are the most the kernel takes")
    facts = HostFacts(group.views(), _host_devices() if isolation.privileged else ())
    return First(
        plan(request, facts),
        request.rootfs.fd,
        request.rundir,
        request.endpoint.netns,
        isolation.hostname,
        isolation.domainname,
    )


def _check(process: ProcessSpec, stdio: Stdio | None) -> None:
    if not process.args or not process.args[0]:
        raise Invalid("no command specified", hint="name one, or use an image that has one")
    if any("\0" in text for text in (*process.args, *process.env, process.cwd)):
        raise Invalid("a command, its environment and its directory can't contain a zero byte")
    if not (process.cwd or "/").startswith("/"):
        raise Invalid(f"working directory {process.cwd!r} is not an absolute path")
    if process.tty != (stdio is None):
        raise Invalid("a process has either a terminal or descriptors")


def privileges_of(isolation: Isolation) -> Privileges:
    """What the container's processes may do. Raises Invalid, Unsupported."""
    capabilities = capability_set(isolation.cap_add, isolation.cap_drop, privileged=isolation.privileged)
    wanted = "unconfined" if isolation.privileged and isolation.seccomp == "default" else isolation.seccomp
    program = choose_program(wanted, capabilities)
    return Privileges(capabilities, program, isolation.no_new_privileges, isolation.resources.ulimits)


def group_of(container: str, isolation: Isolation) -> Group:
    """The container's control group. Raises as `explain` says."""
    try:
        return Group.of(container, isolation.resources)
    except OSError as error:
        raise explain(error, "can't read this machine's control groups") from None


async def _end(child: Child | None, group: Group) -> None:
    """Kill the first process (the kernel kills the rest of its PID namespace), then what else is in the group."""
    if child is not None and child.pidfd >= 0:
        child.signal(signal.SIGKILL)
        group.kill()
        await child.end()
    pause = 0.0005
    while not group.remove():
        group.kill()
        await trio.sleep(pause)
        pause = min(2 * pause, 0.1)


def _host_devices() -> tuple[HostDevice, ...]:
    """Every node in the host's /dev, for privileged containers; not those of terminals and mounts of their own."""
    found = []
    pending = ["/dev"]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                if entry.path not in _OWN_DIRECTORIES:
                    pending.append(entry.path)
            elif stat.S_IFMT(info.st_mode) in (stat.S_IFCHR, stat.S_IFBLK) and entry.path not in _OWN_DEVICES:
                device = info.st_rdev
                found.append(HostDevice(entry.path, info.st_mode, os.major(device), os.minor(device)))
    return tuple(found)


class Running:
    """The container's first process (`ContainerProcess`)."""

    def __init__(
        self, child: Child, group: Group, container: str, privileges: Privileges, *, paused: bool = False
    ) -> None:
        self._child = child
        self._group = group
        self._container = container
        self._privileges = privileges
        self._paused = paused
        self.pid = child.pid

    @property
    def console(self) -> int | None:
        """See scow.api.Process."""
        return self._child.console

    async def wait(self) -> ExitStatus:
        """See scow.api.Process."""
        return await self._child.wait()

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """See scow.api.Process. Raises Invalid for a number that is no signal."""
        self._child.signal(number, everyone=everyone)

    def resize(self, rows: int, columns: int) -> None:
        """See scow.api.Process."""
        self._child.resize(rows, columns)

    def pause(self) -> None:
        """See scow.api.ContainerProcess."""
        self._freeze(True)

    def resume(self) -> None:
        """See scow.api.ContainerProcess."""
        self._freeze(False)

    def _freeze(self, frozen: bool) -> None:
        try:
            self._group.freeze(frozen)
        except OSError as error:
            raise explain(error, "can't reach the freezer") from None
        self._paused = frozen

    def stats(self) -> dict[str, int]:
        """See scow.api.ContainerProcess."""
        return self._group.stats()

    @asynccontextmanager
    async def exec(self, process: ProcessSpec, stdio: Stdio | None) -> AsyncIterator[Child]:
        """See scow.api.ContainerProcess."""
        _check(process, stdio)
        if self._child.pidfd < 0 or self._child.ended:
            raise Conflict(f"container {self._container} is not running", hint="start it first")
        privileges = self._privileges
        if process.privileged:
            privileges = replace(privileges, capabilities=capability_set((), (), privileged=True), seccomp=None)
        if self._paused:
            raise Conflict(f"container {self._container} is paused", hint="unpause it first")
        child = await self._join(process, stdio, privileges)
        child.belongs_to(self._group)
        try:
            yield child
        finally:
            with cleanup(_PATIENCE, f"exec in container {self._container}"):
                if self._paused and not child.ended:
                    self._group.thaw()  # it couldn't end; only a supervisor that ends leaves it in a paused container
                await child.end()

    async def _join(self, process: ProcessSpec, stdio: Stdio | None, privileges: Privileges) -> Child:
        """For a moment there are two (see _stub.py). Where that is one too many, ours stays out of the group."""
        starting = self._start(process, stdio, privileges, crowded=False)
        try:
            return await starting.finish()
        except Exhausted:
            if not starting.line.crowded:
                raise
        return await self._start(process, stdio, privileges, crowded=True).finish()

    def _start(self, process: ProcessSpec, stdio: Stdio | None, privileges: Privileges, *, crowded: bool) -> Starting:
        way = Later(self._child.pidfd)
        with _job(process, stdio, privileges, self._group, joins=True, crowded=crowded) as job:
            if crowded:
                return replace(start(job, way, None, lambda: None), admit=self._group.admit)
            with self._group.unified() as cgroup:
                return start(job, way, cgroup, lambda: None)
