"""What the child does between clone3(2) and execve(2); runs in a copy of the supervisor's interpreter.

A container's first process is the first in its PID namespace too: nobody is there to look. A process that joins a
container stays outside of the PID namespace; what is made inside in the end is a copy of _stub.py's program.

Nothing may be imported here: once the host's root is out of reach, an import would run the image's code as root of
the host. So the import machinery is emptied first, and everything used is imported above.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import socket
import sys
from dataclasses import dataclass
from typing import Final, NoReturn

from scow.api import Internal, Invalid, NotExecutable, ProcessSpec, ScowError, Stdio
from scow.api.linux import (
    MountFlag,
    Namespace,
    Prctl,
    attach_mount,
    close_above,
    default_signals,
    execveat,
    forget_keyring,
    mount,
    pivot_root,
    prctl,
    set_hostname,
    setns,
    umount,
    unshare,
)
from scow_plugins.namespaces._beneath import open_directory
from scow_plugins.namespaces._cgroups.group import enter
from scow_plugins.namespaces._command import environment, find_program
from scow_plugins.namespaces._errors import explain
from scow_plugins.namespaces._identity import Privileges, become, identify, own_pipes, restrict
from scow_plugins.namespaces._null import open_null
from scow_plugins.namespaces._ops import Op
from scow_plugins.namespaces._perform import RealPort, open_sources, perform
from scow_plugins.namespaces._protocol import GO, TERMINAL, encode_error
from scow_plugins.namespaces._stub import REPORT_FD
from scow_plugins.namespaces._terminal import control, open_terminal, resize, show_console
from scow_plugins.namespaces._ulimits import set_ulimits

__all__ = ["First", "Job", "Later", "child_main"]

_STUB_FD: Final = REPORT_FD + 1
_OUT_OF_THE_WAY: Final = 10


@dataclass(frozen=True, slots=True)
class Job:
    """What every process needs. Descriptors are the supervisor's; `stub` is the program to become (see _stub.py).

    `entrances` are directories of control groups of version 1, which the child enters by itself.
    """

    process: ProcessSpec
    stdio: Stdio | None
    privileges: Privileges
    stub: int
    entrances: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class First:
    """A container's first process: it builds the container around itself. `stage` is where its root is put first."""

    plan: tuple[Op, ...]
    rootfs: int
    stage: str
    netns: int | None
    hostname: str
    domainname: str


@dataclass(frozen=True, slots=True)
class Later:
    """A process that joins a container by its first process."""

    init: int


def child_main(job: Job, way: First | Later, sock: socket.socket) -> NoReturn:
    """Become the command, or report why not and exit. Never returns, never raises."""
    try:
        _prepare()
        if isinstance(way, First):
            _early(way)
        _wait(sock)
        enter(job.entrances)
        _run(job, way, sock)
    except ScowError as error:
        _report(sock, error)
    except OSError as error:
        _report(sock, explain(error, "can't start the container's process"))
    except BaseException as error:  # noqa: BLE001 - the copy of the event loop above must never see it
        _report(sock, Internal(f"starting the container's process: {type(error).__name__}: {error}"))
    finally:
        os._exit(127)


def _report(sock: socket.socket, error: ScowError) -> None:
    fd = sock.fileno()
    try:
        os.write(REPORT_FD if fd < 0 else fd, encode_error(error))
    except OSError:
        pass  # the supervisor is gone, and so are we


def _prepare() -> None:
    """Die with the supervisor, import nothing, start from default signals."""
    gc.disable()
    sys.meta_path.clear()
    prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
    default_signals()


def _early(first: First) -> None:
    """What can be done while the supervisor makes the control groups."""
    if first.netns is not None:
        setns(first.netns, Namespace.NET)
    set_hostname(first.hostname, first.domainname)
    mount(None, "/", None, MountFlag.REC | MountFlag.SLAVE)


def _wait(sock: socket.socket) -> None:
    """Go on when the supervisor has made our control groups; end when it is gone."""
    sock.setblocking(True)
    if sock.recv(len(GO)) != GO:
        os._exit(127)


def _run(job: Job, way: First | Later, sock: socket.socket) -> None:
    os.umask(0)
    root = _build(way) if isinstance(way, First) else _join(way)
    os.setsid()
    terminal = _terminal(job, root, console=isinstance(way, First))
    identity = identify(root, job.process.user, job.process.groups)
    cwd = _cwd(job.process, root)
    if terminal is not None:
        if isinstance(way, First):  # who joins leads a session inside, and isn't inside yet
            control(terminal[1])
        os.fchown(terminal[1], identity.uid, -1)
        socket.send_fds(sock, [TERMINAL], [terminal[0]])
    if isinstance(way, First):
        _enter(root)
    os.fchdir(cwd)
    _descriptors(job, terminal[1] if terminal else None, sock, root)
    own_pipes(identity.uid)
    forget_keyring()
    os.umask(0o022)
    set_ulimits(job.privileges.ulimits)  # before CAP_SYS_RESOURCE goes, and after all files were opened
    become(identity, job.privileges)
    env = environment(job.process.env, identity.home, tty=job.process.tty)
    program = find_program(job.process.args[0], env)
    # Prepared before the filter is installed: after it only execveat(2) is certain to be allowed.
    arguments = [os.fsencode(text) for text in (program, *job.process.args)]
    variables = [os.fsencode(text) for text in env]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    restrict(identity, job.privileges)
    _exec(arguments, variables)


def _exec(arguments: list[bytes], variables: list[bytes]) -> None:
    try:
        execveat(_STUB_FD, arguments, variables)
    except OSError as error:
        raise NotExecutable(f"exec {os.fsdecode(arguments[0])}: {error.strerror}") from None


def _build(first: First) -> int:
    """Make the container: gives its root directory."""
    unshare(Namespace.CGROUP)
    port = RealPort(stage=first.stage)
    sources = open_sources(first.plan, port)
    attach_mount(first.rootfs, first.stage)
    port.root = os.open(first.stage, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    perform(first.plan, sources, port)
    return port.root


def _join(later: Later) -> int:
    """Go where the container's first process is; into its PID namespace goes the next child only (setns(2))."""
    kinds = Namespace.MOUNT | Namespace.UTS | Namespace.IPC | Namespace.CGROUP | Namespace.NET | Namespace.PID
    setns(later.init, kinds)
    return os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _enter(root: int) -> None:
    """Leave the host's tree for good."""
    os.fchdir(root)
    pivot_root(".", ".")
    umount(".", detach=True)
    os.chdir("/")


def _terminal(job: Job, root: int, *, console: bool) -> tuple[int, int] | None:
    if not job.process.tty:
        return None
    try:
        master, slave = open_terminal(root)
        if job.process.rows and job.process.columns:
            resize(slave, job.process.rows, job.process.columns)
        if console:
            show_console(root, master)
    except OSError as error:
        raise explain(error, "can't make a terminal in the container's /dev/pts") from None
    return master, slave


def _cwd(process: ProcessSpec, root: int) -> int:
    path = process.cwd or "/"
    if not path.startswith("/"):
        raise Invalid(f"working directory {path!r} is not an absolute path")
    try:
        return open_directory(root, path)
    except OSError as error:
        strerror = (error.strerror or str(error)).lower()
        raise NotExecutable(
            f"chdir to cwd ({path!r}) failed: {strerror}", hint="name a directory that the container has"
        ) from None


def _descriptors(job: Job, slave: int | None, sock: socket.socket, root: int) -> None:
    """0, 1, 2, the socket at 3 (no longer known by its object), the stub at 4, and nothing else."""
    if slave is not None:
        standard = [slave] * 3
    elif job.stdio is not None:
        source = open_null(root) if job.stdio.stdin is None else job.stdio.stdin
        standard = [source, job.stdio.stdout, job.stdio.stderr]
    else:
        raise Internal("a process without a terminal needs descriptors")
    wanted = [*standard, sock.fileno(), job.stub]
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in wanted]
    for number, fd in enumerate(aside):
        os.dup2(fd, number)
    sock.detach()
    os.set_inheritable(_STUB_FD, False)
    close_above(_STUB_FD)
