"""What every runtime must do, as plain async functions over a maker; free of pytest, so that any runner will do.

    for check in (*execs_start.CHECKS, *execs_isolation.CHECKS, *execs_limits.CHECKS):
        run(check, Bench(maker, directory))

The checks need root, a static busybox, and a process without other threads. They run real containers on a directory
tree that they make themselves, and look at them from outside as well as from inside.
"""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from scow.errors import Internal
from scow.hookspecs import ExecHeld
from scow.model.network import Endpoint
from scow.model.process import ContainerProcess, ExecRequest, ExitStatus, Isolation, Process, ProcessSpec, Stdio
from scow.model.storage import Rootfs
from scow.sys.mounts import clone_mount

__all__ = ["Bench", "Check", "ExecMaker", "ExecPlugin", "MemoryJournal", "Outcome", "busybox", "run", "status_of"]

_APPLETS: Final = (
    "cat chmod dd echo env false grep head hostname id kill ls mkdir mknod mount ps pwd readlink rm sed sh sleep sort "
    "stat stty sync tail test touch tr true umount uname wc yes"
)
_DIRECTORIES: Final = ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "var", "home")
#: Seconds that a check may take.
_LONGEST: Final = 60
_PASSWD: Final = "root:x:0:0:root:/root:/bin/sh\nboat:x:1000:1000::/home/boat:/bin/sh\nbroken\n::::\n"
_GROUP: Final = "root:x:0:\nboat:x:1000:\ncrew:x:2000:boat,other\nharbour:x:3000:\n"


class ExecPlugin(Protocol):
    """A plugin that claims exec requests; one that journals also has `reclaim`."""

    def exec(self, request: ExecRequest) -> ExecHeld | None:
        """See `scow.hookspecs.exec`."""
        ...


@dataclass(frozen=True, slots=True)
class ExecMaker:
    """The driver under test: its name, and how to make a plugin."""

    driver: str
    make: Callable[[], ExecPlugin]


@dataclass(slots=True)
class MemoryJournal:
    """A journal that remembers; `held` are the handles not yet released."""

    held: dict[int, dict[str, str | int]] = field(default_factory=dict)
    count: int = 0

    def hold(self, **handle: str | int) -> int:
        """See `scow.model.journal.Journal`."""
        self.count += 1
        self.held[self.count] = handle
        return self.count

    def release(self, entry: int) -> None:
        """See `scow.model.journal.Journal`."""
        del self.held[entry]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended, and what it wrote."""

    status: ExitStatus
    out: str
    err: str


def busybox() -> str | None:
    """A busybox that needs no libraries, where there is one."""
    for candidate in ("/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox-static"):
        if os.path.exists(candidate) and b"ld-linux" not in Path(candidate).read_bytes()[:4096]:
            return candidate
    return None


class Bench:
    """A place to run containers of one driver, with a root file system in `directory`."""

    def __init__(self, maker: ExecMaker, directory: Path) -> None:
        self.maker = maker
        self.directory = directory
        self.journal = MemoryJournal()
        self.root = directory / "root"
        self.rundir = directory / "run"
        self.container = os.urandom(16).hex()
        self._children_before = _children()
        self.rundir.mkdir()
        self._make_root()

    def _make_root(self) -> None:
        for name in _DIRECTORIES:
            (self.root / name).mkdir(parents=True)
        (self.root / "tmp").chmod(0o1777)
        source = busybox()
        if source is None:
            raise Internal("no static busybox here")
        shutil.copy(source, self.root / "bin/busybox")
        for applet in _APPLETS.split():
            (self.root / "bin" / applet).symlink_to("busybox")
        (self.root / "etc/passwd").write_text(_PASSWD)
        (self.root / "etc/group").write_text(_GROUP)

    def request(self, rootfs: int, process: ProcessSpec, stdio: Stdio | None, **changes: Any) -> ExecRequest:
        """A request for this driver; `changes` are fields of ExecRequest."""
        request = ExecRequest(
            driver=self.maker.driver,
            container=self.container,
            process=process,
            isolation=Isolation("vessel"),
            rootfs=Rootfs("test", rootfs),
            endpoint=Endpoint("host", None),
            stdio=stdio,
            journal=self.journal,
            rundir=str(self.rundir),
        )
        return replace(request, **changes)

    @asynccontextmanager
    async def running(
        self, process: ProcessSpec, stdio: Stdio | None = None, **changes: Any
    ) -> AsyncIterator[ContainerProcess]:
        """A container; without `stdio` and terminal it has /dev/null."""
        rootfs = clone_mount(str(self.root))
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            if stdio is None and not process.tty:
                stdio = Stdio(null, null, null)
            held = self.maker.make().exec(self.request(rootfs, process, stdio, **changes))
            if held is None:
                raise Internal(f"{self.maker.driver} doesn't claim its own request")
            async with held as running:
                yield running
        finally:
            os.close(rootfs)
            os.close(null)

    async def run(self, *args: str, isolation: Isolation | None = None, **spec: Any) -> Outcome:
        """Run a command to its end. `spec` are fields of ProcessSpec."""
        with _Captured() as captured:
            changes = {} if isolation is None else {"isolation": isolation}
            async with self.running(ProcessSpec(args, **spec), captured.stdio, **changes) as running:
                status = await running.wait()
            return captured.outcome(status)

    async def shell(self, script: str, isolation: Isolation | None = None, **spec: Any) -> Outcome:
        """Run a script to its end."""
        return await self.run("sh", "-c", script, isolation=isolation, **spec)

    @staticmethod
    def stdio(source: int, sink: int | None = None) -> Stdio:
        """Input from one descriptor, both outputs to another."""
        out = source if sink is None else sink
        return Stdio(source, out, out)

    async def inside(self, container: ContainerProcess, *args: str, **spec: Any) -> Outcome:
        """Run another command in a running container."""
        with _Captured() as captured:
            async with container.exec(ProcessSpec(args, **spec), captured.stdio) as process:
                status = await process.wait()
            return captured.outcome(status)

    def leftovers(self) -> list[str]:
        """What of this container is still there: control groups, journal entries, children."""
        found = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{self.container}*")]
        found += [f"journal {handle}" for handle in self.journal.held.values()]
        return found + [f"child {pid}" for pid in _children() - self._children_before]


class _Captured:
    """Files in memory for a process's output."""

    def __enter__(self) -> _Captured:
        self._files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("out", "err")]
        self._null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.stdio = Stdio(self._null, *self._files)
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (*self._files, self._null):
            os.close(fd)

    def outcome(self, status: ExitStatus) -> Outcome:
        out, err = (os.pread(fd, 1 << 20, 0).decode(errors="replace") for fd in self._files)
        return Outcome(status, out, err)


def _children() -> set[str]:
    return set(Path("/proc/thread-self/children").read_text().split())


def status_of(process: Process) -> dict[str, str]:
    """Fields of /proc/PID/status, as the host sees them."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


Check = Callable[[Bench], Awaitable[None]] | Callable[[Bench], None]


def run(check: Check, bench: Bench) -> None:
    """Run one check to its end. Raises AssertionError, TooSlowError."""

    async def main() -> None:
        with trio.fail_after(_LONGEST):
            await check(bench)  # type: ignore[misc]  # iscoroutinefunction has said so

    if inspect.iscoroutinefunction(check):
        trio.run(main)
    else:
        check(bench)
    assert bench.leftovers() == []
