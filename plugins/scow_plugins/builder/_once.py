"""A step that several builds want at once is done by one of them; the others take what it made."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

#: How often somebody who waits looks, and after how long that is told, in seconds.
_GLANCE: Final = 0.1
_TOLD: Final = 2.0


@asynccontextmanager
async def alone(directory: Path, key: str, waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Hold a key against other builds, of this process and of others; `waiting` tells that somebody has it.

    A lock that a killed build has held is free (flock(2)); what is left of its file is taken by the next one.
    """
    path, waited, told = directory / key, 0.0, False
    while (fd := _take(path)) is None:
        await trio.sleep(_GLANCE)
        waited += _GLANCE
        if waited >= _TOLD and not told:
            told = True
            waiting()
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        # A process that was made meanwhile may have the descriptor, too: closing it would not be enough.
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


def _take(path: Path) -> int | None:
    """The locked file, as long as it is still the one of its name; None when somebody else has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd
    except BlockingIOError:
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
