"""How to find and talk to the warm launcher. Standard library only, and little of it: the dispatcher imports this.

A request is one message: a four-byte length, then fields separated by zero bytes, with descriptors beside them.

    cli         descriptors 0, 1, 2 and the working directory; fields: umask, number of arguments, arguments,
                environment
    supervise   one descriptor, the channel; field: the request in JSON
    quit        nothing

The launcher answers `cli` with one byte ('+': taken, with a pidfd of the worker; '!': my code is stale, ask the next
launcher), and the worker with one byte more at its end, its exit code.
"""

import _imp
import _socket
import os
import sys

HEADER = 4
TAKEN = b"+"
STALE = b"!"
_DEFAULT_RUN = "/run/scow"
_KEY = 0x73636F77
#: In a process that a launcher has forked: that launcher's socket.
home: str | None = None
#: In a command without a launcher: the line to the child that it has made to supervise (see `scow.cold`).
prepared: _socket.socket | None = None


def socket_path(run: str | None = None) -> str:
    """Where the launcher of this installation listens.

    An installation is the package, the interpreter, and where that finds plugins: several virtual environments may
    share one checkout. The digest is the interpreter's own for compiled files, which costs no import.
    """
    package = os.stat(os.path.dirname(os.path.abspath(__file__)))
    # Without -P or -I the first place is the script's, or the working directory of `python -m`.
    path = sys.path if sys.flags.safe_path else sys.path[1:]
    names = "\0".join([f"{package.st_dev}:{package.st_ino}", sys.executable, sys.prefix, *path])
    run = os.path.abspath(run or os.environ.get("SCOW_RUN") or _DEFAULT_RUN)
    return f"{run}/launcher-{_imp.source_hash(_KEY, os.fsencode(names)).hex()}.sock"


def make_directory(directory: str, mode: int = 0o700) -> None:
    """Make a run directory that isn't there, for us alone, whatever the umask. Raises OSError."""
    if not os.path.isdir(directory):
        make_directory(os.path.dirname(directory), 0o755)
        try:
            os.mkdir(directory, mode)
        except FileExistsError:
            pass


def is_private(directory: str) -> bool:
    """Whether nobody else may put a launcher of theirs into a directory. Raises OSError."""
    status = os.stat(directory)
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def isolation() -> str:
    """The interpreter's option with which children see the modules that this process sees, and no others."""
    return "-I" if sys.flags.isolated else "-P"


def connect(path: str) -> _socket.socket | None:
    """A connection to the launcher; None when there is none of ours: it is given the environment and descriptors."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    directory = -1
    try:
        if len(path) >= 100:
            directory, path = short(path)
        sock.connect(path)
        ours = _is_ours(sock)
    except OSError:
        ours = False
    finally:
        if directory >= 0:
            os.close(directory)
    if not ours:
        sock.close()
        return None
    return sock


def _is_ours(sock: _socket.socket) -> bool:
    """Whether the one who listens is of our user: pid, uid, gid at its listen(2) (unix(7), SO_PEERCRED)."""
    credentials = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[4:8], sys.byteorder) == os.geteuid()


def short(path: str) -> tuple[int, str]:
    """A long socket path through a descriptor of its directory, to be closed (sun_path holds 108 bytes, unix(7))."""
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    return directory, f"/proc/self/fd/{directory}/{os.path.basename(path)}"


def send(sock: _socket.socket, fields: list[bytes], descriptors: list[int]) -> None:
    """Send one request. Raises OSError."""
    body = b"\0".join(fields)
    message = len(body).to_bytes(HEADER, "little") + body
    rights = b"".join(fd.to_bytes(4, "little") for fd in descriptors)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if descriptors else []
    sent = sock.sendmsg([message], ancillary)
    if sent < len(message):
        sock.sendall(message[sent:])


def receive(sock: _socket.socket) -> tuple[list[bytes], list[int]]:
    """Take one request. Raises OSError, EOFError."""
    data, ancillary, _, _ = sock.recvmsg(65536, _socket.CMSG_SPACE(16 * 4), _socket.MSG_CMSG_CLOEXEC)
    descriptors = fds_in(ancillary)
    try:
        while len(data) < HEADER or len(data) < HEADER + int.from_bytes(data[:HEADER], "little"):
            more = sock.recv(65536)
            if not more:
                raise EOFError("the request was cut short")
            data += more
    except (OSError, EOFError):
        for fd in descriptors:
            os.close(fd)
        raise
    return data[HEADER:].split(b"\0"), descriptors


def fds_in(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in a received message."""
    found = []
    for level, kind, data in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            found += [int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, len(data) - 3, 4)]
    return found


def start(path: str, seconds: float = 10.0) -> _socket.socket | None:
    """Start a launcher and connect to it; None when it doesn't come up in time.

    When several processes start one at the same moment, one of the launchers stays and the others leave.
    """
    # Only here: whoever finds a launcher needs none of these.
    import subprocess
    import time

    make_directory(os.path.dirname(path))
    null = subprocess.DEVNULL
    # It forks once, so that it is nobody's child, and belongs to no terminal.
    subprocess.run(
        [sys.executable, isolation(), "-m", "scow.launcher", path],
        stdin=null, stdout=null, stderr=null, cwd="/", start_new_session=True, check=False,
    )  # fmt: skip
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (sock := connect(path)) is not None:
            return sock
        time.sleep(0.01)
    return None


def wanted() -> bool:
    """Whether a launcher may be used: SCOW_WARM=0 says no."""
    return os.environ.get("SCOW_WARM", "1") != "0"


def ask_prepared(request: bytes, channel: int) -> bool:
    """Hand a request and the channel to the prepared child; False when there is none (any more)."""
    global prepared
    if prepared is None:
        return False
    line, prepared = prepared, None
    try:
        send(line, [request], [channel])
    except OSError:
        return False
    finally:
        line.close()
    return True
