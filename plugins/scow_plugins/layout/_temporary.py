"""Files that are seen whole or not at all, and what killed writers left of them.

A file is written under a name of its own, `.NAME.PID-RANDOM.tmp`, locked (flock(2)) by its writer for as long as that
lives. Whoever writes next to it takes away those that nobody holds any more: a lock ends with its writer, kill -9
included, also when its number has gone to another process or means one of another container.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

_TEMPORARY: Final = re.compile(r"\.(?P<name>.+)\.[0-9]+(-[0-9a-f]{8})?\.tmp", re.DOTALL)


def final_name(name: str) -> str | None:
    """What a file of this name was to be called; None when it is no unfinished one of ours."""
    match = _TEMPORARY.fullmatch(name)
    return match["name"] if match else None


@contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the target's name at the end, or goes. Raises OSError."""
    temporary, fd = _locked(target)
    try:
        # Closed after the rename only: the lock is what keeps the others from taking it away.
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _locked(target: Path) -> tuple[Path, int]:
    while True:
        temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks: then nobody clears there
            fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.lexists(temporary):
            return temporary, fd
        os.close(fd)  # taken for a dead one's before it was locked


def clear(directory: Path, names: re.Pattern[str]) -> None:
    """Remove what dead writers left in a directory of files that were to be called so. Never fails."""
    with suppress(OSError):
        for entry in os.listdir(directory):
            name = final_name(entry)
            if name is not None and names.fullmatch(name):
                with suppress(OSError):
                    _clear(directory / entry)


def _clear(path: Path) -> None:
    # Neither a link nor a pipe, whoever put it there.
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(fd, path):
                path.unlink()
    finally:
        os.close(fd)


def _is(fd: int, path: Path) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False
