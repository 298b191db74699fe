"""Without a launcher: a child that gets ready to supervise while the command gets ready to ask for it.

Both have to import the same modules; on two processors they do so at the same time. The child is forked before
anything has made a thread. When nobody asks, it ends with the command.
"""

from __future__ import annotations

import _socket
import gc
import os
import signal
import sys

from scow import warm

#: Importing makes many objects and no garbage: with Python's own threshold a tenth of its time would go into looking.
_SELDOM = 100_000
_USUAL = gc.get_threshold()
#: Commands that start a container.
_STARTING = frozenset({"run", "start"})


def prepare(arguments: list[str]) -> None:
    """Fork the child, if the command is one that will want it; and see to it that importing is quick."""
    gc.set_threshold(_SELDOM)
    if _STARTING.isdisjoint(arguments[:8]):
        return
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            # Nobody's child: it outlives the command when it has been asked.
            if os.fork() == 0:
                os.setsid()
                _stand_by(theirs)
        finally:
            os._exit(0)
    theirs.close()
    os.waitpid(pid, 0)
    warm.prepared = ours


def _stand_by(line: _socket.socket) -> None:
    # The command's output ends with the command, and the terminal's signals are its business.
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from scow.loading import load_supervisor

    load_supervisor()
    gc.set_threshold(*_USUAL)
    try:
        fields, descriptors = warm.receive(line)
    except (OSError, EOFError):
        os._exit(0)
    line.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from scow.supervisor.main import start
    from scow.supervisor.protocol import SuperviseRequest

    sys.argv = ["scow"]
    start(SuperviseRequest.decode(fields[0]), descriptors[0])
