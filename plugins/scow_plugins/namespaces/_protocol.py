"""What a child says to the supervisor before it becomes the container's command. Sans-IO: bytes in, bytes out.

    supervisor                                child (a copy of the supervisor's interpreter)
        | clone3 -------------------------------> | dies with the parent; network, hostname; waits
        | makes the control groups                |
        | GO -----------------------------------> | enters them, sets up, drops what it may not keep
        |        <--- TERMINAL + descriptor ----- | (only with a terminal)
        |        <--- ERROR kind message hint --- | and exits
        |        <--- r = -errno, 8 bytes ------- | execve(2) failed (written by the stub, see _stub.py)
        |        <--- end of file --------------- | close-on-exec: the command runs

Records of a SOCK_SEQPACKET pair, so that each arrives whole.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Final

from scow.api import Exhausted, Internal, NoCommand, NotExecutable, ScowError, Unsupported
from scow_plugins.namespaces import _words

__all__ = ["GO", "LARGEST", "TERMINAL", "decode_failure", "encode_error"]

GO: Final = b"G"
TERMINAL: Final = b"T"
_ERROR: Final = b"E"
LARGEST: Final = 16 * 1024
_LARGEST_ERRNO: Final = 4095
_RESULT: Final = struct.Struct("<q")


def encode_error(error: ScowError) -> bytes:
    """An error as one record, cut to what fits."""
    parts = (error.kind.value, error.message, error.hint or "")
    return _ERROR + b"\0".join(part.encode(errors="replace").replace(b"\0", b"?")[:4000] for part in parts)


def decode_failure(record: bytes, command: str) -> ScowError:
    """The error in a record that is no TERMINAL; `command` is what the child was to become."""
    if record[:1] == _ERROR:
        kind, message, hint = (*record[1:].decode(errors="replace").split("\0"), "", "", "")[:3]
        return _error(kind, message, hint or None)
    if len(record) == _RESULT.size and 0 < -_RESULT.unpack(record)[0] <= _LARGEST_ERRNO:
        return _not_executed(-_RESULT.unpack(record)[0], command)
    return Internal(f"unexpected record of {len(record)} bytes from the starting process")


def _error(kind: str, message: str, hint: str | None) -> ScowError:
    for cls in ScowError.__subclasses__():
        if cls.kind.value == kind:
            return cls(message, hint=hint)
    return Internal(f"{message} (of unknown kind {kind!r})", hint=hint)


def _not_executed(code: int, command: str) -> ScowError:
    """As Docker sorts them: 127 for what isn't there, 126 for what can't be executed."""
    what = f"exec {command}: {os.strerror(code).lower()}"
    if code in (errno.ENOENT, errno.ENOTDIR):
        return NoCommand(what, hint=_words.INTERPRETER)
    if code in (errno.EAGAIN, errno.ENOMEM):
        return Exhausted(what, hint=_words.LIMITS)
    if code == errno.ENOEXEC:
        return NotExecutable(what, hint=_words.FORMAT)
    if code == errno.ENOSYS:
        return Unsupported(what)
    return NotExecutable(what, hint=_words.PERMISSION)
