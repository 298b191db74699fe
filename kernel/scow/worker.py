"""A worker: a child of the launcher that is a command, from the request to the exit code."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from scow import habits


def work(
    connection: socket.socket, fields: list[bytes], descriptors: list[int], frontend: Callable[[list[str]], int]
) -> NoReturn:
    """Be the command: its descriptors, directory, umask, environment, arguments. Doesn't return.

    `fields` and `descriptors` are those of a `cli` request (see scow.warm); the exit code goes to the connection.
    """
    _end_with(connection)
    for target, fd in enumerate(descriptors[:3]):
        os.dup2(fd, target)
    try:
        os.fchdir(descriptors[3])
    except OSError:
        os.chdir("/")
    for fd in descriptors:
        os.close(fd)
    os.umask(int(fields[1]))
    count = int(fields[2])
    arguments = [os.fsdecode(word) for word in fields[3 : 3 + count]]
    os.environ.clear()
    for entry in fields[3 + count :]:
        key, _, value = entry.partition(b"=")
        if key:
            os.environb[key] = value
    sys.argv = ["scow", *arguments]
    code = _run(frontend, arguments)
    for fd in range(3):
        # Whoever reads our output sees its end now: ours may take a while, for what the kernel has to give back.
        with contextlib.suppress(OSError):
            os.close(fd)
    connection.sendall(bytes([code & 0xFF]))
    habits.pass_on()
    os._exit(0)


def _run(frontend: Callable[[list[str]], int], arguments: list[str]) -> int:
    _fresh_standard_streams()
    try:
        code = frontend(arguments)
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if isinstance(leave.code, str):
            sys.stderr.write(leave.code + "\n")
    except BaseException as error:  # noqa: BLE001 - the last border of the command
        sys.stderr.write(f"scow: {type(error).__name__}: {error}\n")
        code = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    return code


def _end_with(connection: socket.socket) -> None:
    """Be killed when the other end is closed: whoever kills the command means its worker (fcntl(2), F_SETSIG).

    Nothing else makes this signal: the dispatcher sends nothing more.
    """
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    poller = select.poll()
    poller.register(connection, select.POLLHUP)
    if poller.poll(0):
        os._exit(1)  # it was closed before


def _fresh_standard_streams() -> None:
    """The streams were made for /dev/null; the command's may be a terminal, with other buffering."""
    # No `with`: they stay open as long as the process lives.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
