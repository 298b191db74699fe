"""Directories that nobody else may read, fill, or put another one in the place of.

What OpenSSH asks of a key's path (sshd(8), StrictModes; misc.c, safe_path): each directory on the way belongs to
root or to us, and others can't write to it. A sticky one (/tmp) is different: there nobody renames or removes what is
ours (unlink(2)), but anybody may have made what lies there, so all that is met must be ours. Seen from the top, each
step is safe before the next one is looked at: nobody can exchange what has been looked at already.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from scow.errors import Denied

__all__ = ["make_file", "make_private"]

_LINKS_MAX: Final = 40
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make_private(path: Path, marks: frozenset[str] = frozenset()) -> None:
    """Make a directory with mode 0700 unless it is there; one that is there is tightened, or refused.

    Tightened is an empty one, or one that others could only read and that holds one of the files `marks`: who names
    /run or /tmp by mistake keeps a machine that works. Raises Denied, OSError.
    """
    place = _walk(path)
    try:
        os.mkdir(place, 0o700)
        return
    except FileExistsError:
        # Another command may have made it this moment: what lies there is looked at, whoever was first.
        fd = os.open(place, _OPEN)
    try:
        _tighten(fd, path, marks)
    finally:
        os.close(fd)


def _tighten(fd: int, path: Path, marks: frozenset[str]) -> None:
    status = os.fstat(fd)
    if status.st_uid != os.geteuid():
        raise Denied(f"{path} belongs to user {status.st_uid}", hint="name a directory of your own, or one to be made")
    if not status.st_mode & _OTHERS:
        return
    found = os.listdir(fd)
    if found and (status.st_mode & _OTHERS_WRITE or marks.isdisjoint(found)):
        raise Denied(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o} and isn't empty",
            hint="look who has put there what and make it 0700, or name another directory",
        )
    os.fchmod(fd, 0o700)


def _walk(path: Path) -> str:
    """Go to a path from the top, through safe directories and links only; gives it without links. Makes the parents."""
    todo = [part for part in reversed(os.path.abspath(path).split("/")) if part]
    at, links = "", 0
    _look(at, path)
    while todo:
        part = todo.pop()
        if part in (".", ".."):
            at = at if part == "." else at.rpartition("/")[0]
            continue
        step = f"{at}/{part}"
        try:
            status = os.lstat(step)
        except FileNotFoundError:
            if not todo:
                return step
            with suppress(FileExistsError):  # another command's, which is looked at like any other
                os.mkdir(step, 0o755)
            status = os.lstat(step)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _LINKS_MAX or status.st_uid not in (0, os.geteuid()):
                raise Denied(
                    f"{path} leads through {step}, a link of user {status.st_uid}", hint="name what it leads to"
                )
            target = os.readlink(step)
            at = "" if target.startswith("/") else at
            todo += [part for part in reversed(target.split("/")) if part]
            continue
        at = step
        if todo:
            _look(at, path)
    return at or "/"


def _look(directory: str, path: Path) -> None:
    status = os.lstat(directory or "/")
    if status.st_uid not in (0, os.geteuid()):
        raise Denied(
            f"{path} lies beneath {directory}, which belongs to user {status.st_uid}",
            hint="whoever owns that may exchange it: name a directory beneath root's own",
        )
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX:
        raise Denied(
            f"{path} lies beneath {directory or '/'}, where others may write",
            hint=f"take that from them (chmod go-w {directory or '/'}), or name another directory",
        )


def make_file(path: Path) -> None:
    """See to it that a file is there, with mode 0600 whatever the umask. Raises OSError.

    One that is there is never opened: closing it would give up the locks that this process has on it (fcntl(2)).
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            pass
        return
    if mode & _OTHERS:
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            if name.exists():
                name.chmod(0o600)
