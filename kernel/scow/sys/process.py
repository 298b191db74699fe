"""Processes: clone3(2) with a pidfd, waiting without SIGCHLD, and what a process passes on over execve(2).

`clone` is for processes with a single thread: the child is a copy of the interpreter, which must end in `execve` or
`os._exit` and never return into its caller's event loop.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

from scow.sys.libc import call, syscall

__all__ = [
    "Prctl",
    "all_signals_blocked",
    "clone",
    "close_above",
    "default_signals",
    "execveat",
    "forget_keyring",
    "prctl",
    "reap",
    "sealed_program",
]

_CLONE3: Final = 435
_CLOSE_RANGE: Final = 436
_CLONE_PIDFD: Final = 0x00001000
_CLONE_INTO_CGROUP: Final = 0x200000000
_MACHINE: Final = os.uname().machine
_EXECVEAT: Final = {"x86_64": 322}.get(_MACHINE, 281)
_RT_SIGACTION: Final = {"x86_64": 13}.get(_MACHINE, 134)
_KEYCTL: Final = {"x86_64": 250}.get(_MACHINE, 219)
_AT_EMPTY_PATH: Final = 0x1000
_MFD_CLOEXEC, _MFD_ALLOW_SEALING, _MFD_EXEC = 1, 2, 0x10
_F_ADD_SEALS: Final = 1033
_ALL_SEALS: Final = 0xF


class Prctl(IntEnum):
    """Options of prctl(2)."""

    SET_PDEATHSIG = 1
    GET_DUMPABLE = 3
    SET_DUMPABLE = 4
    SET_KEEPCAPS = 8
    SET_SECCOMP = 22
    CAPBSET_READ = 23
    CAPBSET_DROP = 24
    SET_CHILD_SUBREAPER = 36
    SET_NO_NEW_PRIVS = 38
    CAP_AMBIENT = 47


def prctl(option: int, argument: object = 0, third: int = 0) -> int:
    """prctl(2). Raises OSError."""
    return call("prctl", option, argument, third, 0, 0)


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


# PyDLL keeps the GIL over the call: the child must own it when it comes back.
_syscall_with_gil: Final = ctypes.PyDLL(None, use_errno=True).syscall
_syscall_with_gil.restype = ctypes.c_long
_before_fork: Final = ctypes.pythonapi.PyOS_BeforeFork
_after_fork_parent: Final = ctypes.pythonapi.PyOS_AfterFork_Parent
_after_fork_child: Final = ctypes.pythonapi.PyOS_AfterFork_Child
for _function in (_before_fork, _after_fork_parent, _after_fork_child):
    _function.restype = None
    _function.argtypes = ()


def clone(namespaces: int = 0, *, cgroup: int | None = None) -> tuple[int, int]:
    """clone3(2) into new namespaces (CLONE_NEW* flags), like os.fork().

    `cgroup` is a directory descriptor of the control group (version 2) in which the child is to start (Linux 5.7).
    Gives (pid, pidfd) in the parent, with a close-on-exec pidfd, and (0, -1) in the child. Raises OSError.
    """
    pidfd = ctypes.c_int(-1)
    arguments = _CloneArgs(
        flags=namespaces | _CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=signal.SIGCHLD.value
    )
    if cgroup is not None:
        arguments.flags |= _CLONE_INTO_CGROUP
        arguments.cgroup = cgroup
    _before_fork()
    pid: int = _syscall_with_gil(
        ctypes.c_long(_CLONE3), ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments))
    )
    if pid == 0:
        _after_fork_child()
        return 0, -1
    code = ctypes.get_errno()
    _after_fork_parent()
    if pid < 0:
        raise OSError(code, os.strerror(code), "clone3")
    return pid, pidfd.value


def reap(pidfd: int) -> tuple[int | None, int | None]:
    """Collect a child that has ended: (exit code, None) or (None, signal). Blocks until it has. Raises OSError."""
    while True:
        try:
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        except InterruptedError:
            continue
        if result is None:
            raise OSError(errno.ECHILD, os.strerror(errno.ECHILD))
        if result.si_code == os.CLD_EXITED:
            return result.si_status, None
        return None, result.si_status


@contextmanager
def all_signals_blocked() -> Iterator[None]:
    """No signal is delivered during the body; a child made in it starts with everything blocked."""
    before = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def default_signals() -> None:
    """Every disposition to its default: execve(2) keeps ignored ones (Python ignores SIGPIPE and SIGXFSZ).

    Needs the host's /proc. By the system call itself, because the C library refuses its own two signals.
    """
    changed = _mask(b"SigIgn:") | _mask(b"SigCgt:")
    action = ctypes.create_string_buffer(32)
    for number in range(1, 65):
        if changed >> number - 1 & 1:
            syscall(_RT_SIGACTION, number, action, None, 8)


def _mask(field: bytes) -> int:
    """A bit mask out of /proc/self/status."""
    with open("/proc/self/status", "rb", buffering=0) as status:
        text = status.read(8192)
    at = text.index(field) + len(field)
    return int(text[at : text.index(b"\n", at)], 16)


def close_above(highest: int) -> None:
    """Close every descriptor with a number above `highest` (close_range(2), Linux 5.9). Raises OSError."""
    # -1 is the kernel's own "to the end": UINT_MAX after its cut to 32 bits.
    syscall(_CLOSE_RANGE, highest + 1, 0xFFFFFFFF, 0)


def forget_keyring() -> None:
    """Start with a session keyring of one's own (keyctl(2)); not an error where the kernel has none."""
    try:
        syscall(_KEYCTL, 1, None)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.EDQUOT):
            raise


def sealed_program(name: str, content: bytes) -> int:
    """An executable that exists only in memory and that nobody can change any more (memfd_create(2)).

    Gives a close-on-exec descriptor. Raises OSError.
    """
    try:
        fd = os.memfd_create(name, _MFD_CLOEXEC | _MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.3 there is no MFD_EXEC
            raise
        fd = os.memfd_create(name, _MFD_CLOEXEC | _MFD_ALLOW_SEALING)
    os.write(fd, content)
    os.fchmod(fd, 0o555)
    call("fcntl", fd, _F_ADD_SEALS, _ALL_SEALS)
    return fd


def execveat(program: int, arguments: Sequence[bytes], environment: Sequence[bytes]) -> None:
    """execveat(2) of an open file. Comes back only as OSError."""
    syscall(_EXECVEAT, program, b"", _vector(arguments), _vector(environment), _AT_EMPTY_PATH)


def _vector(strings: Sequence[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(strings) + 1))(*strings, None)
