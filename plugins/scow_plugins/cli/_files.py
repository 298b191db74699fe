"""Files that a command reads because its user names them, and files that it writes: seen whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from scow.api import Denied, Invalid

_CHUNK = 1 << 16


def read_named(path: str | int, limit: int, what: str) -> bytes:
    """What is in a file that the user names (or has opened): any kind, also a pipe, but only so much of it.

    For what lies in a build's context use `scow.api.linux.read_beneath`: that a stranger may have filled. Raises
    OSError; Invalid for more than `limit` bytes.
    """
    fd = os.dup(path) if isinstance(path, int) else os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    found = bytearray()
    try:
        while len(found) <= limit and (piece := os.read(fd, _CHUNK)):
            found += piece
    finally:
        os.close(fd)
    if len(found) > limit:
        raise Invalid(f"{what} is larger than {limit >> 10} KiB", hint="is it the file that was meant?")
    return bytes(found)


@contextmanager
def replaced(path: str) -> Iterator[int]:
    """A descriptor to write to; `path` is the file when the body has ended well. Raises Denied."""
    if os.path.exists(path) and not os.path.isfile(path):
        # A pipe or /dev/null is written as it is.
        fd = _opened(path, os.O_WRONLY)
        try:
            yield fd
        finally:
            os.close(fd)
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = _opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, path)
    try:
        try:
            yield fd
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _opened(path: str, flags: int, shown: str = "") -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        hint = "its directory must be there" if isinstance(error, FileNotFoundError) else None
        raise Denied(f"can't write {shown or path}: {(error.strerror or '').lower()}", hint=hint) from None
