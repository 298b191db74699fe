"""The warm launcher: a process that has imported everything and forks a worker for each command.

It runs no event loop and no thread, so it may fork safely; it keeps no state, so it may be killed at any moment; it
serves its own user only; it leaves when it has been idle for a while, and when the code or the configuration that it
has loaded has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from scow import warm
from scow.config import Config, load_config
from scow.errors import ScowError
from scow.loading import load_everything, sources, stamp
from scow.standby import Standbys
from scow.supervisor.protocol import SuperviseRequest
from scow.sys.process import Prctl, prctl
from scow.worker import work

_PATIENCE: Final = 5.0
#: Standbys are made when nothing has come for this long, in seconds: whoever works has the processors. Not much longer
#: than a short command takes, so that the next one in a loop finds something.
_BREATH: Final = 0.025
#: How often it looks whether its socket is still its own, in seconds.
_LOOK_ROUND: Final = 15.0
_READY: Final = b"r"


def main(path: str) -> int:
    """Serve at a socket path until idle or stale."""
    lock = _own(path + ".lock")
    if lock is None:
        return 0  # another one is here already
    warm.home = path
    # The children of a supervisor that was killed are ours to collect: a container can't end before its processes are,
    # and not every machine's process 1 does that (prctl(2), PR_SET_CHILD_SUBREAPER).
    prctl(Prctl.SET_CHILD_SUBREAPER, 1)
    frontend = load_everything()
    if frontend is None:
        return 1
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.umask(0o077)  # the socket is never anybody else's, not even until the chmod; workers have their caller's
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path if len(path) < 100 else warm.short(path)[1])
        os.chmod(path, 0o600)
        listener.listen(128)
        Launcher(path, lock, listener, frontend).serve()
    return 0


def _own(path: str) -> int | None:
    """Lock a file that its owner removes when it leaves; None when there is an owner."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)


class Launcher:
    """The serving loop."""

    def __init__(self, path: str, lock: int, listener: socket.socket, frontend: Callable[[list[str]], int]) -> None:
        self._path = path
        self._lock = lock
        self._listener = listener
        self._frontend = frontend
        # Listed once: whatever the launcher touches for each command becomes a page that every child has for itself.
        self._sources = sources()
        self._stamp = stamp(self._sources)
        self._inode = os.stat(path).st_ino
        self._idle = _idle_seconds()
        self._leaving = False
        self._aside = False
        self._standbys = Standbys(self._fork, self._do)
        #: Children that are a command.
        self._commands: set[int] = set()

    def serve(self) -> None:
        """Take requests until it is time to leave."""
        # What was imported is never collected: children share these pages as long as nobody touches them.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._standbys.settle()
        wake, reader = self._watch_children()
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(reader, select.POLLIN)
        last = time.monotonic()
        at_once = False
        while not self._leaving and time.monotonic() - last < self._idle and self._still_mine():
            missing = self._standbys.missing()
            breath = 0.0 if at_once else _BREATH
            ready = poller.poll((breath if missing else min(_LOOK_ROUND, self._idle)) * 1000)
            if not ready and missing:
                # The next round of the loop makes the next one, or tries again where no process can be had.
                try:
                    self._standbys.make(missing[0])
                except OSError:
                    at_once = False
            for fd, _ in ready:
                if fd == reader:
                    os.read(reader, 4096)
                    # A command that has ended leaves its processor to us, until the next one comes.
                    at_once = self._forget(_reap()) or at_once
                else:
                    last = time.monotonic()
                    at_once = False
                    self._accept()
        self._leave()
        os.close(wake)

    def _forget(self, gone: set[int]) -> bool:
        """These children have ended; whether a command is among them."""
        self._standbys.forget(gone)
        ended = self._commands & gone
        self._commands -= ended
        return bool(ended)

    def _watch_children(self) -> tuple[int, int]:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_sigterm)
        return writer, reader

    def _on_sigterm(self, *_: object) -> None:
        self._leaving = True

    def _still_mine(self) -> bool:
        try:
            return os.stat(self._path).st_ino == self._inode
        except OSError:
            return False

    def _leave(self) -> None:
        """Take the name away first, then serve those who came before."""
        self._step_aside()
        self._standbys.dismiss()
        self._listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._accept()

    def _step_aside(self) -> None:
        """Make room for the next launcher, once: names and inodes may be its own after this."""
        if self._aside:
            return
        self._aside = True
        with contextlib.suppress(OSError):
            if self._still_mine():
                os.unlink(self._path)
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._lock), os.stat(self._path + ".lock")):
                os.unlink(self._path + ".lock")
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(True)
        connection.settimeout(_PATIENCE)
        with connection:
            try:
                if _peer(connection).uid != os.geteuid():
                    return
                fields, descriptors = warm.receive(connection)
            except (OSError, EOFError):
                return
            try:
                connection.settimeout(None)
                self._handle(connection, fields, descriptors)
            except OSError:
                pass  # the client has gone
            finally:
                for fd in descriptors:
                    os.close(fd)

    def _handle(self, connection: socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
        kind = fields[0]
        if kind == b"quit":
            self._leaving = True
        elif kind == b"cli" and len(descriptors) == 4:
            if stamp(self._sources) != self._stamp:
                self._leaving = True
                # The name goes before the answer does, so that the client finds the next launcher, not us.
                self._step_aside()
                connection.sendall(warm.STALE)
                return
            self._serve_by_child(connection, fields, descriptors)
        elif kind == b"supervise" and len(descriptors) == 1:
            self._standbys.practise_on(fields[1])
            self._serve_by_child(connection, fields, descriptors)

    def _serve_by_child(self, connection: socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
        """Give a request to a child on standby, else to a new one.

        The client is told first that its request is taken: what the child says comes behind that.
        """
        standby = self._standbys.take(fields[0])
        if standby is not None:
            self._note_command(fields, standby.pid)
            with standby.line:
                _as_nice_as(connection, standby.pid)
                _tell_taken(connection, fields, standby.pid)
                warm.send(standby.line, fields, [connection.fileno(), *descriptors])
            return
        gate, opener = os.pipe2(os.O_CLOEXEC)

        def wait_and_do() -> None:
            os.close(opener)
            if os.read(gate, 1) != _READY:
                os._exit(0)  # the client was not told, and asks again
            os.close(gate)
            self._do(connection, fields, descriptors)

        try:
            child = self._fork(wait_and_do)
            self._note_command(fields, child)
            _as_nice_as(connection, child)
            _tell_taken(connection, fields, child)
            os.write(opener, _READY)
        finally:
            os.close(opener)
            os.close(gate)

    def _note_command(self, fields: list[bytes], pid: int) -> None:
        if fields[0] == b"cli":
            self._commands.add(pid)

    def _do(self, connection: socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
        if fields[0] == b"cli":
            work(connection, fields, descriptors, self._frontend)
        else:
            connection.close()
            _supervise(fields[1], descriptors[0])

    def _fork(self, body: Callable[[], None]) -> int:
        # A signal for the child that comes before it has its own handlers waits.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            raise
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        else:
            try:
                self._become_child()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                body()
            finally:
                os._exit(warm_failure())
        return pid

    def _become_child(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._listener.close()
        os.close(self._lock)
        self._standbys.dismiss()
        os.setsid()
        gc.enable()


def _as_nice_as(connection: socket.socket, pid: int) -> None:
    """A child has the priority of the process that it works for, whatever its own was (setpriority(2))."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, _peer(connection).pid))


def _tell_taken(connection: socket.socket, fields: list[bytes], pid: int) -> None:
    """Answer the client; a command's dispatcher gets a pidfd to send its signals to. Raises OSError."""
    if fields[0] != b"cli":
        connection.sendall(warm.TAKEN)
        return
    pidfd = os.pidfd_open(pid)
    try:
        socket.send_fds(connection, [warm.TAKEN], [pidfd])
    finally:
        os.close(pidfd)


def _supervise(request: bytes, channel: int) -> None:
    from scow.supervisor.main import start

    start(SuperviseRequest.decode(request), os.dup(channel))


def warm_failure() -> int:
    """The exit code of a child whose body has returned or raised: nobody reads it."""
    return 1


def _reap() -> set[int]:
    """Collect ended children; gives their pids."""
    gone = set()
    with contextlib.suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            gone.add(pid)
    return gone


class _Peer(NamedTuple):
    """Who is at the other end of a socket (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


def _peer(connection: socket.socket) -> _Peer:
    return _Peer(*struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))


def _idle_seconds() -> float:
    try:
        return load_config().idle_seconds()
    except ScowError:
        return Config().idle_seconds()


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # whoever started it need not wait
    sys.exit(main(sys.argv[1]))
