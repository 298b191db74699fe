"""A container's root: a copy of its image's topmost snapshot, made once, by a child process that can be killed."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from scow.api import Exhausted, Internal, MountRequest, Rootfs, ScowError
from scow.api.layers import copy_tree, empty_directory, read_attributes, translated, write_attributes
from scow.api.linux import Prctl, clone_mount, mount_setattr, prctl
from scow_plugins.native._unpack import refuse_strangers

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE: Final = 1 << 18


@asynccontextmanager
async def mounted(request: MountRequest) -> AsyncIterator[Rootfs]:
    """Hold a detached mount of the copy, which stays in `scratch`."""
    refuse_strangers(request.layers)
    root = request.scratch / "rootfs"
    if not root.exists():
        await _make(request, root)
    fd = clone_mount(str(root))
    try:
        # A copy of a shared mount is shared with it: mounts in the container would show up on the host.
        mount_setattr(fd, propagation=_PRIVATE)
        yield Rootfs(request.driver, fd)
    finally:
        os.close(fd)


async def _make(request: MountRequest, root: Path) -> None:
    """The copy gets its name when it is complete; what a killed process has left of one is removed first."""
    new = request.scratch / "rootfs.new"
    new.mkdir(mode=0o755, exist_ok=True)
    source = request.layers[-1].path if request.layers else None
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = _fork()
        if not pid:
            _child(source, new, writer)
        os.close(writer)
        writer = -1
        await _wait(pid)
        complaint = os.read(reader, 4096).decode(errors="replace")
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    if complaint:
        raise _error(complaint)
    new.rename(root)


def _fork() -> int:
    with warnings.catch_warnings():
        # A supervisor has one thread. Elsewhere (tests) other threads may hold locks, but the child only copies files.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _child(source: Path | None, target: Path, writer: int) -> None:
    """In the child, which never returns: a complaint goes through the pipe, nothing means that all is well."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(Prctl.SET_PDEATHSIG, signal.SIGKILL)
        _copy(source, target)
    except OSError as error:
        failure = translated(error, os.fsencode(error.filename or target))
        os.write(writer, f"{failure.kind.value}\n{failure.message}\n{failure.hint or ''}".encode()[:4000])
    except BaseException as error:  # noqa: BLE001 - the child's last words
        os.write(writer, f"internal\ncopying the root file system failed: {error!r}\n".encode()[:4000])
    finally:
        os._exit(0)


def _copy(source: Path | None, target: Path) -> None:
    new = os.open(target, _DIRECTORY)
    empty_directory(new)
    if source is None:
        return
    old = os.open(source, _DIRECTORY)
    copy_tree(old, new)
    write_attributes(new, read_attributes(os.fstat(old), old))


async def _wait(pid: int) -> None:
    """Wait for the child's end; when cancelled, make it end."""
    pidfd = os.pidfd_open(pid)
    try:
        await trio.lowlevel.wait_readable(pidfd)
    except BaseException:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        raise
    finally:
        os.close(pidfd)
        # It has ended or is being killed: this takes no time.
        status = os.waitpid(pid, 0)[1]  # noqa: ASYNC222
    if status:
        raise Internal(f"copying the root file system ended with status {status}")


def _error(complaint: str) -> ScowError:
    kind, message, hint = complaint.split("\n", 2)
    return (Exhausted if kind == "exhausted" else Internal)(message, hint=hint or None)
