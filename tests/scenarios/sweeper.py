"""A process that runs commands in children of its own and kills them at the n-th thing that they do to the disk.

Lines of JSON in and out: `{"argv": […], "env": {…}, "kill": n}` gives `{"code": …, "out": …, "ticks": …}`. A tick is an
opening for writing, a rename, a removal, a connection, an SQL statement: whatever may be half done. With `kill` the
child sends itself SIGKILL at that tick, before it happens.

All is imported once, so a command takes a twentieth of a second.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from scow.launcher import load_everything

Frontend = Callable[[list[str]], int]

_TOLD = frozenset(
    {
        "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
        "os.utime", "os.setxattr", "fcntl.flock", "socket.connect", "sqlite3.connect",
    }
)  # fmt: skip
_connect = sqlite3.connect
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Ticks:
    """Counts, in memory that the parent sees, and kills."""

    def __init__(self, kill: int, shared: Any) -> None:
        self._kill = kill
        self._shared = shared
        self._count = 0

    def tick(self, *_: object) -> None:
        self._count += 1
        if self._count == self._kill:
            os.kill(os.getpid(), signal.SIGKILL)
        os.pwrite(self._shared, b"%d" % self._count, 0)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _TOLD or (event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING):
            self.tick()

    def connect(self, *words: Any, **options: Any) -> sqlite3.Connection:
        """As sqlite3.connect, with a tick before each statement."""
        connection = _connect(*words, **options)
        connection.set_trace_callback(self.tick)
        return connection


def child(frontend: Frontend, order: dict[str, Any], output: int, shared: int) -> None:
    """Run the command. Doesn't return."""
    code = 1
    try:
        os.environ.update(order["env"])
        source = os.open("/dev/null", os.O_RDONLY)
        for target, fd in ((0, source), (1, output), (2, output)):
            os.dup2(fd, target)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(os.dup(fd), mode) for fd, mode in ((0, "r"), (1, "w"), (2, "w")))
        sys.argv = ["scow", *order["argv"]]
        ticks = Ticks(order.get("kill", 0), shared)
        sqlite3.connect = ticks.connect
        sys.addaudithook(ticks.hook)
        code = frontend(order["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def run(frontend: Frontend, order: dict[str, Any]) -> dict[str, Any]:
    """One command to its end, whichever that is."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as shared:
        pid = os.fork()
        if pid == 0:
            child(frontend, order, output.fileno(), shared.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        output.seek(0)
        shared.seek(0)
        return {"code": code, "out": output.read().decode(errors="replace"), "ticks": int(shared.read() or b"0")}


if __name__ == "__main__":
    loaded = load_everything()
    assert loaded is not None
    for line in sys.stdin:
        print(json.dumps(run(loaded, json.loads(line))), flush=True)
