"""What a child says to the supervisor before it becomes the container's command. Sans-IO: bytes in, bytes out.

    supervisor                                child (a copy of the supervisor's interpreter)
        | clone3 -------------------------------> | dies with the parent; network, hostname; waits
        | makes the control groups                |
        | GO -----------------------------------> | enters them, sets up, drops what it may not keep
        |        <--- TERMINAL + descriptor ----- | (only with a terminal)
        |        <--- ERROR kind message hint --- | and exits
        |                                         | becomes the program of _stub.py
        |        <--- r = pid, 8 bytes ---------- | if it joins: its copy inside has been made; exits
        | GO -----------------------------------> | (to the copy) goes on
        |        <--- r = -errno, 8 bytes ------- | execve(2) failed
        |        <--- end of file --------------- | close-on-exec: the command runs

Records of a SOCK_SEQPACKET pair, so that each arrives whole. The copy inside can be in the hands of the container
(CAP_SYS_PTRACE): of what it says nothing but an errno is taken. Who says what the kernel tells (see _line.py).
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from scow.api import Exhausted, Internal, NoCommand, NotExecutable, ScowError, Unsupported
from scow_plugins.namespaces import _words

__all__ = ["GO", "LARGEST", "TERMINAL", "decode_failure", "decode_pid", "decode_stranger", "encode_error", "is_crowded"]

GO: Final = b"G"
TERMINAL: Final = b"T"
#: Longer than a result.
_ERROR: Final = b"ERROR\0\0\0\0"
LARGEST: Final = 16 * 1024
_LARGEST_ERRNO: Final = 4095
#: PID_MAX_LIMIT.
_LARGEST_PID: Final = 4 * 1024 * 1024
_RESULT: Final = struct.Struct("<q")


def encode_error(error: ScowError) -> bytes:
    """An error as one record, cut to what fits."""
    parts = (error.kind.value, error.message, error.hint or "")
    return _ERROR + b"\0".join(part.encode(errors="replace").replace(b"\0", b"?")[:4000] for part in parts)


def decode_failure(record: bytes, command: str) -> ScowError:
    """The error in a record that is neither TERMINAL nor a pid; `command` is what the child was to become."""
    if record.startswith(_ERROR):
        kind, message, hint = (*record[len(_ERROR) :].decode(errors="replace").split("\0"), "", "", "")[:3]
        return _error(kind, _printable(message), _printable(hint) or None)
    return decode_stranger(record, command) or Internal(
        f"unexpected record of {len(record)} bytes from the starting process"
    )


def decode_stranger(record: bytes, command: str) -> ScowError | None:
    """The failed execve(2) in a record of a process that the container may have taken over."""
    result = _result(record)
    return _not_executed(-result, command) if 0 < -result <= _LARGEST_ERRNO else None


def decode_pid(record: bytes) -> int | None:
    """The process in which the command will run."""
    result = _result(record)
    return result if 0 < result <= _LARGEST_PID else None


def is_crowded(record: bytes) -> bool:
    """Is it EAGAIN, with which clone(2) says that a limit on processes is reached?"""
    return _result(record) == -errno.EAGAIN


def _result(record: bytes) -> int:
    return int(_RESULT.unpack(record)[0]) if len(record) == _RESULT.size else 0


def _printable(text: str) -> str:
    """Names of the container's are in messages, and messages on terminals."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _error(kind: str, message: str, hint: str | None) -> ScowError:
    for cls in ScowError.__subclasses__():
        if cls.kind.value == kind:
            return cls(message, hint=hint)
    return Internal(f"{message} (of unknown kind {kind!r})", hint=hint)


def _not_executed(code: int, command: str) -> ScowError:
    """As Docker sorts them: 127 for what isn't there, 126 for what can't be executed."""
    what = _printable(f"exec {command}: {os.strerror(code).lower()}")
    if code in (errno.ENOENT, errno.ENOTDIR):
        return NoCommand(what, hint=_words.INTERPRETER)
    if code in (errno.EAGAIN, errno.ENOMEM):
        return Exhausted(what, hint=_words.LIMITS)
    if code == errno.ENOEXEC:
        return NotExecutable(what, hint=_words.FORMAT)
    if code == errno.ENOSYS:
        return Unsupported(what)
    return NotExecutable(what, hint=_words.PERMISSION)
