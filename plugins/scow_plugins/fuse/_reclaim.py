"""After a supervisor's violent death: its fuse-overlayfs leaves with the mount, by itself; one that stays is killed."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from scow.api import Internal
from scow_plugins.fuse._daemon import TOKEN

#: How long it may take by itself, and how long killed, in seconds.
_PATIENCE: Final = 3.0
_AGONY: Final = 5.0


def reclaim(token: str) -> None:
    """Wait for the end of the process that has this token in its environment, then end it. Raises Internal."""
    with _found(token) as pidfds:
        for pid, pidfd in pidfds:
            if _ended(pidfd, _PATIENCE):
                continue
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if not _ended(pidfd, _AGONY):
                raise Internal(f"fuse-overlayfs (process {pid}) can't be ended")


@contextmanager
def _found(token: str) -> Iterator[list[tuple[int, int]]]:
    """Process IDs and descriptors of the processes that have the token. It is long and random: nobody guesses it."""
    wanted = f"{TOKEN}={token}".encode()
    found: list[tuple[int, int]] = []
    try:
        for name in os.listdir("/proc"):
            if name.isdigit() and _has(name, wanted):
                try:
                    pidfd = os.pidfd_open(int(name))
                except ProcessLookupError:
                    continue
                found.append((int(name), pidfd))
        # Looked at again: a number may have got another process between the look and the opening.
        yield [(pid, pidfd) for pid, pidfd in found if _has(str(pid), wanted)]
    finally:
        for _, pidfd in found:
            os.close(pidfd)


def _has(pid: str, wanted: bytes) -> bool:
    try:
        return wanted in Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _ended(pidfd: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
