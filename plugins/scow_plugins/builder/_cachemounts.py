"""`RUN --mount=type=cache`: directories that stay from build to build, by name, and who may use one at a moment."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from scow_plugins.builder._steps import MountOp

#: How often somebody who waits for a locked cache looks again, in seconds.
_GLANCE: Final = 0.05


@asynccontextmanager
async def held(base: Path, mount: MountOp) -> AsyncIterator[Path]:
    """The directory of a cache mount, for the body's time. `locked` waits, `private` takes another one."""
    name = hashlib.sha256(mount.id.encode()).hexdigest()[:32]
    place, fd = await _locked(base, name, mount.sharing)
    try:
        content = place / "content"
        if not content.exists():
            content.mkdir(mode=0o755)
            os.chmod(content, 0o755 if mount.mode is None else mount.mode)
            os.chown(content, mount.uid, mount.gid)
            (place / "id").write_text(mount.id)
        yield content
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


async def _locked(base: Path, name: str, sharing: str) -> tuple[Path, int]:
    kind = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
    number = 0
    while True:
        place = base / (f"{name}-{number}" if number else name)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            if sharing == "private":
                number += 1
            else:
                await trio.sleep(_GLANCE)
            continue
        except BaseException:
            os.close(fd)
            raise
        return place, fd
