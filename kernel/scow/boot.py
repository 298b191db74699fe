"""The `scow` command: a dispatcher that hands everything to the warm launcher, or does it itself, only slower.

Watch what is imported here: the whole dispatcher has to start in the time of an empty Python program.
"""

import _signal  # type: ignore[import-not-found]
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

#: Signals that a user's terminal or supervisor sends to the command, and that belong to the worker.
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGALRM", "SIGCONT")
_LOST = 125


def main() -> "NoReturn":
    """Run `sys.argv` as a scow command, and end with its exit code."""
    arguments = sys.argv[1:]
    # Until somebody cares for it, Ctrl-C ends us as it ends any program: without a traceback.
    interactive = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler
    if interactive:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if os.environ.get("SCOW_WARM", "1") != "0" and os.geteuid() == 0:
        code = _through_launcher(arguments)
        if code is not None:
            # Nothing of ours waits to be written, and taking an interpreter apart takes a quarter of its start.
            os._exit(code)
    sys.exit(_here(arguments, interactive))


def _here(arguments: list[str], interactive: bool) -> int:
    from scow import cold
    from scow.frontend import load_frontend, run_frontend

    if os.geteuid() == 0:
        cold.prepare(arguments)
    frontend = load_frontend()
    if interactive:
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
    return run_frontend(arguments, frontend)


def _through_launcher(arguments: list[str]) -> int | None:
    """The exit code, or None when no launcher can be had."""
    from scow import warm

    try:
        path = warm.socket_path()
        warm.make_directory(os.path.dirname(path))
        if not warm.is_private(os.path.dirname(path)):
            return None  # the engine says what is wrong with it
    except OSError:
        return None
    for fd in range(3):
        _usable(fd)  # before anything else is opened, which would get its number
    for attempt in range(3):
        sock = (warm.connect(path) if attempt < 2 else None) or warm.start(path)
        if sock is None:
            return None
        # A signal between the worker's start and our readiness to forward it must not end us alone.
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, [getattr(_signal, name) for name in _FORWARDED])
        try:
            pidfd = _hand_over(sock, arguments)
        except (OSError, EOFError):
            pidfd = None  # it left in this very moment
        if pidfd is not None:
            return _wait(sock, pidfd, mask)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
        sock.close()
    return None


def _hand_over(sock: object, arguments: list[str]) -> int | None:
    """Give the command away: a pidfd of the worker, or None when the launcher's code is stale."""
    from scow import warm

    cwd = os.open(".", os.O_PATH | os.O_CLOEXEC)
    umask = os.umask(0)
    os.umask(umask)
    environment = [key + b"=" + value for key, value in os.environb.items()]
    words = [os.fsencode(word) for word in arguments]
    fields = [b"cli", str(umask).encode(), str(len(words)).encode(), *words, *environment]
    try:
        warm.send(sock, fields, [0, 1, 2, cwd])  # type: ignore[arg-type]
    finally:
        os.close(cwd)
    answer, ancillary, _, _ = sock.recvmsg(1, 64)  # type: ignore[attr-defined]
    if answer == warm.STALE:
        return None
    if answer != warm.TAKEN:
        raise EOFError("the launcher has left")
    return warm.fds_in(ancillary)[0]


def _usable(fd: int) -> None:
    """Make a standard descriptor that the caller has closed /dev/null."""
    try:
        os.fstat(fd)
    except OSError:
        os.open("/dev/null", os.O_RDWR)  # takes the lowest free number


def _wait(sock: object, pidfd: int, mask: object) -> int:
    """Pass signals on to the worker until it tells its exit code; `mask` is what was blocked before."""
    passed_on = 0

    def forward(number: int, _frame: object) -> None:
        nonlocal passed_on
        passed_on = number
        try:
            _signal.pidfd_send_signal(pidfd, number)
        except OSError:
            pass

    for name in _FORWARDED:
        number = getattr(_signal, name)
        if _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, forward)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    try:
        code = sock.recv(1)  # type: ignore[attr-defined]
    except OSError:
        code = b""
    if not code and passed_on:
        # What ended the worker ends us: the caller sees how.
        _signal.signal(passed_on, _signal.SIG_DFL)
        _signal.raise_signal(passed_on)
    if not code:
        os.write(2, b"scow: the command's process was killed\n")
        return _LOST
    return int(code[0])
