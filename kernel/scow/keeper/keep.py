"""The keeper: holds a container's descriptors, writes its output to the log, and fetches a supervisor when need be.

With a supervisor (the guest) it speaks over a socket that keeps messages apart; each is one dictionary, marshalled as
in version 2 of the format, which every Python reads (the guest may be newer than the keeper):

    keeper → guest   first the state, with the descriptors beside it;
                     then {"exited": (code, signal)}, {"terminate": True}
    guest → keeper   {"closed": name}: close this descriptor;
                     {"back": {stream: rest of a line}}: nothing more to do, hold on; {"over": True}: all is mine now

A guest that ends without a word changes nothing: the keeper holds on and fetches another one when it has to.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import marshal
import posix
import select
import sys
import time

from scow.keeper.logfile import LogFile

#: Not typing's, which would stay in memory.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

_CHUNK = 64 * 1024
MESSAGE_MAX = 256 * 1024
#: Seconds until a guest that has failed is followed by another one, at first and at most.
_FIRST_PAUSE, _LAST_PAUSE = 0.2, 10.0
#: So many guests may fail to take over a container that has ended; then it is for the next command to clean up.
_TRIES = 4
#: Seconds that the launcher may take to answer.
_PATIENCE = 2.0
_TAKEN = b"+"
_HEADER = 4
VERSION = 1
FORMAT = 2
#: The descriptors that are handed over, in this order; one that there isn't is left out and named as missing.
NAMES = ("lock", "listener", "pidfd", "stdout", "stderr", "stdin", "console")
#: The signals that a keeper does something about; blocked when it begins.
HEARD = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)
_STREAMS = {"stdout": 1, "stderr": 2, "console": 1}


def main(fd: int) -> None:
    """Hold on to the container that a memory file describes. Doesn't return."""
    state = marshal.loads(_read(fd))
    posix.close(fd)
    for held in state["held"]:
        posix.set_inheritable(held, False)
    with_name = posix.open("/proc/self/comm", posix.O_WRONLY | posix.O_CLOEXEC)
    posix.write(with_name, b"scow:" + state["container"][:10].encode())
    posix.close(with_name)
    Keeper(state).run()


def _read(fd: int) -> bytes:
    data = b""
    posix.lseek(fd, 0, 0)
    while piece := posix.read(fd, 1 << 20):
        data += piece
    return data


class Keeper:
    """The loop."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state
        self._fds: dict[str, int] = state["fds"]
        self._log = LogFile(*state["log"])
        self._take_rests(state["rest"])
        self._poller = select.poll()
        self._guest: _socket.socket | None = None
        self._exited: tuple[int | None, int | None] | None = None
        self._terminate = False
        self._wanted = False
        self._failures = 0
        self._not_before = 0.0
        self._starters: list[int] = []
        self._signals = self._watch_signals()
        self._poller.register(self._fds["pidfd"], select.POLLIN)
        self._poller.register(self._signals, select.POLLIN)
        self._listen()

    def run(self) -> None:
        """Until a guest has taken everything over, or cleaning up has failed too often."""
        while True:
            for fd, _ in self._poller.poll(self._timeout()):
                self._react(fd)
            self._reap_starters()
            if self._needed() and self._guest is None and time.monotonic() >= self._not_before:
                self._fetch_guest()

    def _needed(self) -> bool:
        return self._wanted or self._terminate or self._exited is not None

    def _timeout(self) -> int | None:
        """In milliseconds; none while there is nothing to do."""
        if self._starters:
            return 100
        if self._guest is None and self._needed():
            return max(0, int((self._not_before - time.monotonic()) * 1000) + 1)
        return None

    def _watch_signals(self) -> int:
        reader, writer = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGTERM, lambda *_: None)
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
        _signal.signal(_signal.SIGHUP, _signal.SIG_IGN)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, HEARD)
        return reader

    def _listen(self) -> None:
        """Take the output, and see who knocks."""
        for name in ("stdout", "stderr", "console"):
            if name in self._fds:
                self._poller.register(self._fds[name], select.POLLIN)
        self._poller.register(self._fds["listener"], select.POLLIN)

    def _stop_listening(self) -> None:
        for name in ("stdout", "stderr", "console", "listener"):
            if name in self._fds:
                try:
                    self._poller.unregister(self._fds[name])
                except KeyError:
                    pass  # at its end already

    def _react(self, fd: int) -> None:
        if self._guest is not None and fd == self._guest.fileno():
            self._hear()
        elif fd == self._signals:
            posix.read(fd, 64)
            self._terminate = True
            self._tell({"terminate": True})
        elif fd == self._fds["pidfd"]:
            self._collect()
        elif fd == self._fds["listener"]:
            self._wanted = True
            self._poller.unregister(fd)
        else:
            self._pump(fd)

    def _pump(self, fd: int) -> None:
        name = next((name for name in _STREAMS if self._fds.get(name) == fd), None)
        if name is None:
            return  # given away in this very round
        try:
            data = posix.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal whose last user has closed it reads as EIO
        if data:
            self._log.write(_STREAMS[name], data)
        else:
            self._poller.unregister(fd)
            self._log.flush(_STREAMS[name])

    def _collect(self) -> None:
        self._poller.unregister(self._fds["pidfd"])
        result = posix.waitid(posix.P_PIDFD, self._fds["pidfd"], posix.WEXITED)
        if result is None:
            posix._exit(1)
        if result.si_code == posix.CLD_EXITED:
            self._exited = (result.si_status, None)
        else:
            self._exited = (None, result.si_status)
        self._tell({"exited": self._exited})

    def _tell(self, message: dict[str, Any]) -> None:
        if self._guest is not None:
            try:
                self._guest.send(marshal.dumps(message, FORMAT))
            except OSError:
                pass  # it has gone; its end will be heard

    def _hear(self) -> None:
        assert self._guest is not None
        try:
            said = self._guest.recv(MESSAGE_MAX)
        except OSError:
            said = b""
        message = marshal.loads(said) if said else {}
        if "over" in message:
            posix._exit(0)
        if "closed" in message:
            posix.close(self._fds.pop(message["closed"]))
            return
        self._poller.unregister(self._guest.fileno())
        self._guest.close()
        self._guest = None
        self._wanted = False
        if "back" in message:
            self._failures = 0
            self._take_rests(message["back"])
        else:
            self._failed()
        self._listen()

    def _failed(self) -> None:
        """A guest has ended without a word, or could not be had."""
        self._failures += 1
        if self._exited is not None and self._failures >= _TRIES:
            posix._exit(1)
        self._not_before = time.monotonic() + min(_FIRST_PAUSE * 2**self._failures, _LAST_PAUSE)

    def _take_rests(self, rests: dict[int, bytes]) -> None:
        for stream, rest in rests.items():
            self._log.rest[stream][:] = rest

    def _fetch_guest(self) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            if not self._ask_launcher(theirs):
                self._start_one(theirs)
            self._stop_listening()
            self._hand_over(ours)
        except OSError:
            ours.close()
            self._wanted = False
            self._failed()
            self._listen()
            return
        finally:
            theirs.close()
        self._guest = ours
        self._poller.register(ours.fileno(), select.POLLIN)

    def _hand_over(self, guest: _socket.socket) -> None:
        """The guest gets copies of everything; ours are closed by our end."""
        names = [name for name in NAMES if name in self._fds]
        message = {
            "version": VERSION,
            "container": self._state["container"],
            "pid": self._state["pid"],
            "names": names,
            "rest": {stream: bytes(rest) for stream, rest in self._log.rest.items()},
            "delay": self._state["delay"],
            "exited": self._exited,
            "terminate": self._terminate,
        }
        rights = b"".join(self._fds[name].to_bytes(4, "little") for name in names)
        guest.sendmsg([marshal.dumps(message, FORMAT)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])

    def _ask_launcher(self, channel: _socket.socket) -> bool:
        """Whether a launcher has taken the request; see scow.warm for how one speaks to it."""
        path = str(self._state["launcher"])
        directory = -1
        with_launcher = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        with_launcher.settimeout(_PATIENCE)
        try:
            if len(path) >= 100:
                name = path.rpartition("/")
                directory = posix.open(name[0], posix.O_PATH | posix.O_CLOEXEC)
                path = f"/proc/self/fd/{directory}/{name[2]}"
            with_launcher.connect(path)
            # Who listens there gets all that the container has: our user only (unix(7), SO_PEERCRED).
            credentials = with_launcher.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
            if int.from_bytes(credentials[4:8], sys.byteorder) != posix.geteuid():
                return False
            body = b"supervise\0" + self._state["request"]
            message = len(body).to_bytes(_HEADER, "little") + body
            rights = channel.fileno().to_bytes(4, "little")
            sent = with_launcher.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
            if sent < len(message):
                with_launcher.sendall(message[sent:])
            return with_launcher.recv(1) == _TAKEN
        except OSError:
            return False
        finally:
            with_launcher.close()
            if directory >= 0:
                posix.close(directory)

    def _start_one(self, channel: _socket.socket) -> None:
        """`python -m scow.supervisor`: slower, and needs nobody. Raises OSError."""
        command = [*self._state["python"], str(channel.fileno())]
        request = posix.memfd_create("request", posix.MFD_CLOEXEC)
        posix.write(request, self._state["request"])
        posix.lseek(request, 0, 0)
        posix.set_inheritable(channel.fileno(), True)
        try:
            self._starters.append(
                posix.posix_spawn(
                    command[0], command, posix.environ, file_actions=[(posix.POSIX_SPAWN_DUP2, request, 0)]
                )
            )
        finally:
            posix.close(request)

    def _reap_starters(self) -> None:
        """Collect what has started guests; the guests themselves are nobody's children."""
        self._starters = [pid for pid in self._starters if posix.waitpid(pid, posix.WNOHANG)[0] == 0]
