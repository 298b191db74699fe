"""What exec takes and gives: a process, its isolation, its resources. OCI runtime spec terms where there are any."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from scow.model.journal import Journal
from scow.model.network import Endpoint
from scow.model.storage import Rootfs


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A program to run inside a container.

    `user` is Docker's `user[:group]`, names or numbers, looked up in the image's files; empty means root.
    `cwd` is made when it isn't there (the container's first process only).
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    tty: bool = False
    groups: tuple[str, ...] = ()
    privileged: bool = False
    #: Rows and columns of the terminal at its start; zero: unknown.
    rows: int = 0
    columns: int = 0


class BindMount(msgspec.Struct, frozen=True, tag="bind"):
    """A path of the host's that the container sees. `source` is absolute and exists."""

    source: str
    target: str
    read_only: bool = False
    #: Docker's words: private, rprivate, slave, rslave, shared, rshared.
    propagation: str = "rprivate"
    #: False: the source's own sub-mounts are not taken along.
    recursive: bool = True


class TmpfsMount(msgspec.Struct, frozen=True, tag="tmpfs"):
    """An empty memory file system in the container. `size` in bytes, None: the kernel's default."""

    target: str
    size: int | None = None
    mode: int = 0o1777
    read_only: bool = False
    #: Its own options beside these, as tmpfs(5) has them: ("uid", "7"), ("nr_inodes", "1k"), ("size", "50%").
    options: tuple[tuple[str, str], ...] = ()
    #: Words of mount(8) that take back noexec, nosuid or nodev (exec, suid, dev), or say when times are kept: noatime,
    #: nodiratime, strictatime.
    flags: tuple[str, ...] = ()


Mount = BindMount | TmpfsMount


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A limit of each single process, under Docker's names (`nofile`); -1: unlimited. In setrlimit(2)'s units."""

    name: str
    soft: int
    hard: int

    def __str__(self) -> str:
        return f"{self.name}={self.soft}:{self.hard}"


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of a container; None: no limit. `memory` and swap in bytes, `cpus` in processors."""

    memory: int | None = None
    #: Memory and swap together (Docker's --memory-swap); -1: unlimited swap.
    memory_swap: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    pids: int | None = None
    shm_size: int = 64 * 1024 * 1024
    #: Those that aren't named are the engine's own.
    ulimits: tuple[Ulimit, ...] = ()
    #: The control group above the container's, from the hierarchies' roots; empty: the driver's own.
    cgroup_parent: str = ""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a container may do and see, apart from its files and its network."""

    hostname: str
    domainname: str = ""
    privileged: bool = False
    #: Names without or with CAP_, upper or lower case; ALL is a name too (Docker's --cap-add, --cap-drop).
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only: bool = False
    #: Docker's --security-opt: seccomp=unconfined | no-new-privileges.
    seccomp: str = "default"
    no_new_privileges: bool = False
    #: Nothing of /proc and /sys is hidden, and /proc/sys can be written (systempaths=unconfined).
    unmasked: bool = False
    mounts: tuple[Mount, ...] = ()
    resources: Resources = field(default_factory=Resources)
    sysctls: tuple[tuple[str, str], ...] = ()
    #: PID 1 is a small reaper of scow's own (--init).
    init: bool = False


@dataclass(frozen=True, slots=True)
class Stdio:
    """Descriptors that become the process's 0, 1 and 2. The caller keeps and closes its own copies.

    They are the container's from then on: what they lead to, it may change (mode, owner). No file of the host's.
    """

    #: None: the container's own /dev/null.
    stdin: int | None
    stdout: int
    stderr: int


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """A container's first process.

    `stdio` is None when the process has a terminal: the driver then makes one in the container's own devpts and
    offers its master as `Process.console`. `etc` are small files that the engine writes for each run of the container,
    such as /etc/hosts; the driver shows them without changing the image, as copies that hold what is written to them
    and that have a limit; read-only in a read-only container.
    """

    driver: str
    container: str
    process: ProcessSpec
    isolation: Isolation
    rootfs: Rootfs
    endpoint: Endpoint
    stdio: Stdio | None
    journal: Journal
    #: Run-time directory of this container, private to it; its files are removed with it.
    rundir: str
    #: (path on the host, path inside).
    etc: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """A container's first process that runs already, and that another process of scow's is the parent of.

    `pidfd` and `console` (the master of its terminal) belong to whoever adopts. `wait` gives the end, as the parent
    sees it; `ExitStatus.oom_killed` is for the driver to find out.
    """

    driver: str
    container: str
    isolation: Isolation
    pid: int
    pidfd: int
    console: int | None
    paused: bool
    wait: Callable[[], Awaitable[ExitStatus]]


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended. Exactly one of `code` (0 to 255) and `signal` (1 to 64) is set."""

    code: int | None = None
    signal: int | None = None
    oom_killed: bool = False

    @property
    def exit_code(self) -> int:
        """As a shell and Docker show it: 128 + n for a signal."""
        if self.signal is not None:
            return 128 + self.signal
        return self.code if self.code is not None else 255


class Process(Protocol):
    """A running process, held by the driver that started it."""

    @property
    def pid(self) -> int:
        """Its number in the host's PID namespace."""
        ...

    @property
    def console(self) -> int | None:
        """The master side of its terminal; owned by the driver."""
        ...

    async def wait(self) -> ExitStatus:
        """Wait for the end of the process; may be called again, and by several tasks."""
        ...

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal to the process (or to all processes of the container). No error when it has ended."""
        ...

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size."""
        ...


class ContainerProcess(Process, Protocol):
    """The first process of a container, by which others get in."""

    def exec(self, process: ProcessSpec, stdio: Stdio | None) -> AbstractAsyncContextManager[Process]:
        """Another process in the same container. Raises NoCommand, NotExecutable, Invalid."""
        ...

    def pause(self) -> None:
        """Freeze all processes. Raises Unsupported."""
        ...

    def resume(self) -> None:
        """Thaw them."""
        ...

    def stats(self) -> dict[str, int]:
        """Counters by name: memory_bytes, cpu_ns, pids; what the machine can't tell is missing."""
        ...
