"""Who works with the store: many at once who bring things in, or one who takes things away.

A flock on a file in the root directory. Whoever pulls, creates or commits holds it shared while there are blobs or
layers that no record names yet; a sweep holds it alone. A kill -9 lets go of it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import trio

#: How often somebody who waits looks again, in seconds.
_GLANCE: Final = 0.01


@asynccontextmanager
async def store_shared(root: Path) -> AsyncIterator[None]:
    """Nothing is swept during the body. Waits for a sweep that is going on."""
    fd = _open(root)
    try:
        # A lock in another process gives no notice when it is let go.
        while not _try(fd, fcntl.LOCK_SH):  # noqa: ASYNC110
            await trio.sleep(_GLANCE)
        yield
    finally:
        _close(fd)


@contextmanager
def store_alone(root: Path, patience: float) -> Iterator[bool]:
    """Nobody brings anything in during the body; False when somebody still did after `patience` seconds. Blocks."""
    fd = _open(root)
    try:
        deadline = time.monotonic() + patience
        while not (got := _try(fd, fcntl.LOCK_EX)) and time.monotonic() < deadline:
            time.sleep(_GLANCE)
        yield got
    finally:
        _close(fd)


def _open(root: Path) -> int:
    return os.open(root / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _try(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _close(fd: int) -> None:
    # Explicitly: a child forked meanwhile would keep the lock until it ends.
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
