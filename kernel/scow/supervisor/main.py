"""A supervisor's start: own the container, leave the host's mount namespace, then run the task tree.

Comes to life in two ways: forked from the warm launcher, or as `python -m scow.supervisor` when there is none. The
code is the same from `start` on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

import structlog
import trio

from scow import habits
from scow.engine.core import Core
from scow.engine.opening import open_core
from scow.errors import Conflict, ScowError, Unsupported
from scow.log import configure
from scow.paths import Paths
from scow.state.liveness import take
from scow.supervisor.frames import encode_control
from scow.supervisor.kept import Kept, receive
from scow.supervisor.protocol import SuperviseRequest
from scow.supervisor.run import supervise, supervise_kept
from scow.supervisor.step import supervise_step
from scow.sys.libc import call
from scow.sys.mounts import MountFlag, mount
from scow.sys.namespaces import Namespace, unshare

#: How long the last supervisor of a container may take to clean up, in seconds.
_HANDOVER: Final = 10.0
_PR_SET_NAME: Final = 15


def start(request: SuperviseRequest, channel: int) -> None:
    """Supervise a container; `channel` is a connected stream socket to whoever asked. Doesn't return.

    The calling process is single-threaded and belongs to the supervisor from now on.
    """
    code = 1
    try:
        _detach(request)
        code = _run(request, socket.socket(fileno=channel))
    except BaseException:  # noqa: BLE001 - the last border: nobody is above us
        structlog.get_logger("scow").exception("supervisor.failed", container=request.container)
    finally:
        sys.stderr.flush()
        habits.pass_on()
        # Not sys.exit: closing the last connection to SQLite would checkpoint and sync, which costs 10 ms and more.
        os._exit(code)


def _run(request: SuperviseRequest, channel: socket.socket) -> int:
    rundir = Paths.of(Path(request.root), Path(request.run)).rundir(request.container)
    if request.resume:
        return _resume(request, channel, rundir)
    try:
        lock = _own(rundir)
        _redirect(rundir / "supervisor.log")
        core = _open(request)
    except ScowError as error:
        failed = {"kind": error.kind.value, "message": error.message, "hint": error.hint}
        with contextlib.suppress(OSError):
            channel.sendall(encode_control(failed=failed))
        return 1
    try:
        trio.run(_supervise, core, request, channel, lock, restrict_keyboard_interrupt_to_checkpoints=True)
    finally:
        os.close(lock)
    return 0


def _resume(request: SuperviseRequest, channel: socket.socket, rundir: Path) -> int:
    """Take over from a keeper; whatever goes wrong, it still holds the container, and will ask again."""
    _redirect(rundir / "supervisor.log")
    kept = receive(channel)
    trio.run(_supervise_kept, _open(request), request, kept, restrict_keyboard_interrupt_to_checkpoints=True)
    return 0


async def _supervise_kept(core: Core, request: SuperviseRequest, kept: Kept) -> None:
    with structlog.contextvars.bound_contextvars(container=request.container[:12]):
        await supervise_kept(core, request, kept)


async def _supervise(core: Core, request: SuperviseRequest, channel: socket.socket, lock: int) -> None:
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(channel))
    with structlog.contextvars.bound_contextvars(container=request.container[:12]):
        if request.step is not None:
            await supervise_step(core, request.step, stream)
        else:
            await supervise(core, request, stream, lock)


def _own(rundir: Path) -> int:
    """Be the container's only supervisor. One that just ends is waited for."""
    deadline = time.monotonic() + _HANDOVER
    while (lock := take(rundir)) is None:
        if (rundir / "control.sock").exists() or time.monotonic() > deadline:
            raise Conflict(f"container {rundir.name[:12]} is running already")
        time.sleep(0.02)
    return lock


def _open(request: SuperviseRequest) -> Core:
    config_file = Path(request.config) if request.config else None
    config = request.settings
    configure(config.log_level, config.log_format)
    paths = Paths.of(Path(request.root), Path(request.run))
    return open_core(paths, config, config_file, command=request.command)


def _detach(request: SuperviseRequest) -> None:
    """Belong to no terminal and no directory; have a mount table of our own, which the host's changes still reach."""
    with contextlib.suppress(PermissionError):
        os.setsid()
    os.chdir("/")
    os.umask(0o022)
    call("prctl", _PR_SET_NAME, ctypes.c_char_p(b"scow:" + request.container[:10].encode()), 0, 0, 0)
    try:
        unshare(Namespace.MOUNT)
        mount(None, "/", None, MountFlag.REC | MountFlag.SLAVE)
    except OSError as error:
        raise Unsupported(
            f"a mount namespace can't be made: {error.strerror}", hint="scow needs CAP_SYS_ADMIN"
        ) from None


def _redirect(log: Path) -> None:
    """Standard input and output to /dev/null, errors to a file beside the lock."""
    null = os.open("/dev/null", os.O_RDWR)
    errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for source, target in ((null, 0), (null, 1), (errors, 2)):
        os.dup2(source, target)
    for fd in {null, errors} - {0, 1, 2}:
        os.close(fd)
