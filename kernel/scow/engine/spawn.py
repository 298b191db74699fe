"""Starting a supervisor: from the warm launcher where there is one, else as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from _socket import socket

import trio

from scow import warm
from scow.errors import Internal
from scow.supervisor.protocol import SuperviseRequest


async def spawn_supervisor(request: SuperviseRequest) -> trio.SocketStream:
    """Start a supervisor; gives the channel to it. Raises Internal when no process can be started."""
    ours, theirs = trio.socket.socketpair()
    try:
        if not (warm.wanted() and _from_launcher(request, theirs.fileno())):
            await trio.to_thread.run_sync(_without_launcher, request, theirs.fileno())
    except OSError as error:
        ours.close()
        raise Internal(f"a supervisor can't be started: {error.strerror}") from error
    finally:
        theirs.close()
    return trio.SocketStream(ours)


def _from_launcher(request: SuperviseRequest, channel: int) -> bool:
    """Whether a launcher that is there already has taken the request."""
    connection = warm.connect(_launcher(request))
    return connection is not None and _ask(connection, request, channel)


def _launcher(request: SuperviseRequest) -> str:
    """The launcher that forked us, else the one of the engine's run directory."""
    return warm.home or warm.socket_path(request.run)


def _ask(connection: socket, request: SuperviseRequest, channel: int) -> bool:
    try:
        warm.send(connection, [b"supervise", request.encode()], [channel])
        return connection.recv(1) == warm.TAKEN
    except OSError:
        return False
    finally:
        connection.close()


def _without_launcher(request: SuperviseRequest, channel: int) -> None:
    """Start a launcher and ask it; where there may be none, or it doesn't come, start the supervisor directly."""
    if warm.wanted():
        connection = warm.start(_launcher(request))
        if connection is not None and _ask(connection, request, channel):
            return
    _cold(request, channel)


def _cold(request: SuperviseRequest, channel: int) -> None:
    """The child that the command has made for this, else `python -m scow.supervisor`, which forks for itself."""
    if warm.ask_prepared(request.encode(), channel):
        return
    os.set_inheritable(channel, True)
    subprocess.run(
        [sys.executable, warm.isolation(), "-m", "scow.supervisor", str(channel)],
        input=request.encode(),
        pass_fds=(channel,),
        stdout=subprocess.DEVNULL,
        check=True,
        start_new_session=True,
    )
