"""Who lives: a supervisor holds a lock on a file in its container's run directory, and the kernel lets go of it.

A lock needs no clock, no PID that might be used again, and no clean-up after a kill -9 (flock(2)).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def take(rundir: Path) -> int | None:
    """Become the owner of a run directory (made if needed): a descriptor to keep; None when somebody else is."""
    rundir.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        try:
            fd = os.open(rundir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            rundir.mkdir(parents=True, exist_ok=True, mode=0o700)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        # The last owner may have removed the directory between our open and our lock.
        try:
            if os.fstat(fd).st_ino == os.stat(rundir / "lock").st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)
        rundir.mkdir(parents=True, exist_ok=True, mode=0o700)


def is_owned(rundir: Path) -> bool:
    """Whether a living process owns a run directory."""
    try:
        fd = os.open(rundir / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared: two who ask at the same moment must not take each other for the owner.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
