"""The warm launcher: a process that has imported everything and forks a worker for each command.

It runs no event loop and no thread, so it may fork safely; it keeps no state, so it may be killed at any moment; it
serves its own user only; it leaves when it has been idle for a while, and when the code or the configuration that it
has loaded has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from scow import entrypoints, habits, warm
from scow.config import SYSTEM_FILE, Config, load_config
from scow.errors import ScowError
from scow.frontend import load_frontend
from scow.log import configure
from scow.practice import practise
from scow.supervisor.protocol import SuperviseRequest
from scow.sys.credentials import has_bounding

_PATIENCE: Final = 5.0
#: How often it looks whether its socket is still its own, in seconds.
_LOOK_ROUND: Final = 15.0
#: What children wait for: a command's worker, and its supervisor.
_KINDS: Final = (b"cli", b"supervise")
#: Standbys are made when nothing has come for this long, in seconds: whoever works has the processors. Not much longer
#: than a short command takes, so that the next one in a loop finds something.
_BREATH: Final = 0.025
#: A child that has practised for longer than this, in seconds, hangs somewhere.
_HANGING: Final = 5.0
#: By how much a child that practises is nicer than others. The rest of the machine's work goes first, but not for ever.
_LEISURE: Final = 10
_CAP_SYS_NICE: Final = 23
_READY: Final = b"r"
#: The stages that a supervisor enters.
_HOLDING: Final = ("scow.mount", "scow.network", "scow.exec")


def main(path: str) -> int:
    """Serve at a socket path until idle or stale."""
    lock = _own(path + ".lock")
    if lock is None:
        return 0  # another one is here already
    warm.home = path
    frontend = load_everything()
    if frontend is None:
        return 1
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
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


def load_everything() -> Callable[[list[str]], int] | None:
    """Import the front-end, the engine and every module of every plugin; what fails is met again by the worker."""
    entrypoints.keep()
    frontend = load_frontend()
    importlib.import_module("scow.supervisor.main")
    importlib.import_module("scow.engine.facade")
    _load_plugins(entrypoints.scan())
    with contextlib.suppress(ScowError):
        config = load_config()  # msgspec looks at a type when it is first converted to
        configure(config.log_level, config.log_format)
    return frontend


def load_supervisor() -> None:
    """Import what a supervisor needs: its own code, and every module of the plugins that hold a container."""
    entrypoints.keep()
    importlib.import_module("scow.supervisor.main")
    _load_plugins([point for point in entrypoints.scan() if point.group in _HOLDING])


def _load_plugins(points: list[entrypoints.EntryPoint]) -> None:
    for module in sorted({point.module for point in points}):
        _import_all(module)
    for point in set(points):
        _warm_up(point)


def _import_all(name: str) -> None:
    try:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(getattr(package, "__path__", []), name + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    except Exception:  # noqa: BLE001 - a stranger's plugin; the worker names it
        pass


def _warm_up(point: entrypoints.EntryPoint) -> None:
    """A plugin's factory may have a static method `warm`: what it computes once serves every command."""
    try:
        warm_up = getattr(point.load(), "warm", None)
        if warm_up is not None:
            warm_up()
    except Exception:  # noqa: BLE001 - a stranger's plugin; the worker names it
        pass


class _Standby(NamedTuple):
    """A child that waits for a request of its kind on a socket."""

    kind: bytes
    made: float
    pid: int
    line: socket.socket


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
        self._standbys: list[_Standby] = []
        #: The last supervisor's request: standbys practise on its engine.
        self._last: bytes | None = None
        self._habits: dict[bytes, habits.Habits] = {}

    def serve(self) -> None:
        """Take requests until it is time to leave."""
        # What was imported is never collected: children share these pages as long as nobody touches them.
        gc.collect()
        gc.freeze()
        gc.disable()
        self._habits = {kind: habits.Habits() for kind in _KINDS}
        wake, reader = self._watch_children()
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(reader, select.POLLIN)
        last = time.monotonic()
        while not self._leaving and time.monotonic() - last < self._idle and self._still_mine():
            short = len(self._standbys) < len(_KINDS)
            ready = poller.poll((_BREATH if short else min(_LOOK_ROUND, self._idle)) * 1000)
            if not ready and short:
                self._restock()
            for fd, _ in ready:
                if fd == reader:
                    os.read(reader, 4096)
                    gone = _reap()
                    self._standbys = [standby for standby in self._standbys if standby.pid not in gone]
                else:
                    last = time.monotonic()
                    self._accept()
        self._leave()
        os.close(wake)

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
        for standby in self._standbys:
            standby.line.close()
        self._standbys.clear()
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
            self._last = fields[1]
            self._serve_by_child(connection, fields, descriptors)

    def _serve_by_child(self, connection: socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
        """Give a request to a child on standby, else to a new one.

        The client is told first that its request is taken: what the child says comes behind that.
        """
        standby = self._take_standby(fields[0])
        if standby is not None:
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
            _as_nice_as(connection, child)
            _tell_taken(connection, fields, child)
            os.write(opener, _READY)
        finally:
            os.close(opener)
            os.close(gate)

    def _do(self, connection: socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
        if fields[0] == b"cli":
            self._work(connection, fields, descriptors)
        else:
            connection.close()
            _supervise(fields[1], descriptors[0])

    def _restock(self) -> None:
        """One more child on standby; the next round of the loop makes the next."""
        ours, theirs = socket.socketpair()
        last = self._last
        there = {standby.kind for standby in self._standbys}
        kind = next(kind for kind in _KINDS if kind not in there)

        def stand_by() -> None:
            ours.close()
            _leisurely()
            practise(SuperviseRequest.decode(last) if last else None, lambda: _is_called(theirs))
            if not _is_called(theirs):
                self._habits[kind].take_on()
            try:
                theirs.sendall(_READY)
            except OSError:
                pass  # the request lies there already, and its sender has turned away
            try:
                fields, descriptors = warm.receive(theirs)
            except (OSError, EOFError):
                os._exit(0)  # the launcher has left
            theirs.close()
            self._do(socket.socket(fileno=descriptors[0]), fields, descriptors[1:])

        with theirs:
            self._standbys.append(_Standby(kind, time.monotonic(), self._fork(stand_by), ours))

    def _take_standby(self, kind: bytes) -> _Standby | None:
        """A child for requests of a kind, taken off the list; None when there is none.

        One that still practises will do: it is further than a new one would be.
        """
        for standby in self._standbys:
            if standby.kind == kind:
                self._standbys.remove(standby)
                if _is_ready(standby.line) or time.monotonic() - standby.made < _HANGING:
                    return standby
                standby.line.close()  # it ends when it comes to
                self._last = None
        return None

    def _fork(self, body: Callable[[], None]) -> int:
        # A signal for the child that comes before it has its own handlers waits.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
        pid = os.fork()
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
        for standby in self._standbys:
            standby.line.close()
        os.setsid()
        gc.enable()

    def _work(self, connection: socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
        """Be the command: its descriptors, directory, umask, environment, arguments."""
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
        code = self._run(arguments)
        for fd in range(3):
            # Whoever reads our output sees its end now: ours may take a while, for what the kernel has to give back.
            with contextlib.suppress(OSError):
                os.close(fd)
        connection.sendall(bytes([code & 0xFF]))
        habits.pass_on()
        os._exit(0)

    def _run(self, arguments: list[str]) -> int:
        _fresh_standard_streams()
        try:
            code = self._frontend(arguments)
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


def _is_ready(line: socket.socket) -> bool:
    try:
        return line.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) == _READY
    except OSError:
        return False


def _is_called(line: socket.socket) -> bool:
    """Whether something has come, or nothing will come any more."""
    return bool(select.select([line], [], [], 0)[0])


def _leisurely() -> None:
    """Let others go first (sched(7), the nice value), if that can be taken back."""
    if has_bounding(_CAP_SYS_NICE):
        os.nice(_LEISURE)


def _as_nice_as(connection: socket.socket, pid: int) -> None:
    """A child has the priority of the process that it works for, whatever its own was (setpriority(2))."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, _peer(connection).pid))


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


def _fresh_standard_streams() -> None:
    """The streams were made for /dev/null; the command's may be a terminal, with other buffering."""
    # No `with`: they stay open as long as the process lives.
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False, buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115


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


def sources() -> list[str]:
    """Everything that was loaded: modules, the directories they come from, the configuration."""
    files = [module.__dict__.get("__file__") for module in list(sys.modules.values()) if hasattr(module, "__dict__")]
    paths = {path for path in files if path and "scow" in path}
    paths.update(path for path in sys.path if path)
    paths.add(str(SYSTEM_FILE))
    return sorted(paths)


def stamp(paths: list[str]) -> list[int]:
    """The age of files and directories; what is missing counts as 0."""
    return [_mtime(path) for path in paths]


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # whoever started it need not wait
    sys.exit(main(sys.argv[1]))
