"""Files that a command writes: seen whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from scow.api import Denied


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
