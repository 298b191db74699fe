"""`RUN --mount=type=cache`: directories that stay from build to build, by name, and who may use one at a moment.

With `from=` such a directory begins as a copy of what is there; another content under the same name is another one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from scow.api import Exhausted, Invalid, NotFound
from scow.api.layers import copy_tree
from scow.api.linux import open_beneath
from scow.engine.building import cachemounts
from scow_plugins.builder._steps import MountOp

if TYPE_CHECKING:
    from scow_plugins.builder._solve import Solver

#: How often somebody who waits for a locked cache looks again, in seconds.
_GLANCE: Final = 0.05


@asynccontextmanager
async def held(solver: Solver, mount: MountOp) -> AsyncIterator[Path]:
    """The directory of a cache mount, for the body's time. `locked` waits, `private` takes another one."""
    named = mount.id
    if mount.origin.kind != "scratch":
        named = f"{mount.id}\0{await solver.tree_key(mount.origin)}\0{mount.source.strip('/')}"
    place, fd = await _locked(solver.bench.state_dir / "caches", cachemounts.name_of(named), mount.sharing)
    try:
        content = place / "content"
        if not content.exists():
            await _make(solver, mount, place)
        yield content
    finally:
        cachemounts.unlock(fd)


async def _locked(base: Path, name: str, sharing: str) -> tuple[Path, int]:
    number = 0
    while True:
        place = base / (f"{name}-{number}" if number else name)
        fd = cachemounts.lock(place, alone=sharing != "shared")
        if fd is not None:
            return place, fd
        if sharing == "private":
            number += 1
        else:
            await trio.sleep(_GLANCE)


def _lock(path: Path) -> int | None:
    """A descriptor that holds a lock until it is closed; None when somebody else does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


async def _make(solver: Solver, mount: MountOp, place: Path) -> None:
    """The directory with its first content, under its name when it is complete: several steps may begin at once."""
    # Another process has it: nobody in this one would tell.
    while (fd := _lock(place / "making")) is None:  # noqa: ASYNC110
        await trio.sleep(_GLANCE)
    try:
        if (place / "content").exists():
            return
        shutil.rmtree(new := place / "new", ignore_errors=True)
        new.mkdir(mode=0o755)
        (place / "id").touch(0o600)
        (place / "id").write_text(mount.id)
        if mount.origin.kind != "scratch":
            (place / "origin").touch(0o600)
            (place / "origin").write_text(f"{mount.source or '/'} of {mount.origin}")
        if mount.origin.kind == "scratch":
            os.chmod(new, 0o755 if mount.mode is None else mount.mode)
            os.chown(new, mount.uid, mount.gid)
        else:
            async with solver.bench.view(await solver.stack_of(mount.origin)) as root:
                await trio.to_thread.run_sync(_fill, root, new, mount)
        new.rename(place / "content")
    finally:
        os.close(fd)


def _fill(root: int, new: Path, mount: MountOp) -> None:
    shown = f"{mount.source or '/'} of {mount.origin}"
    try:
        source = open_beneath(root, mount.source.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        raise NotFound(f"the cache {mount.id} can't begin with {shown}: there is no such directory") from None
    target = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        copy_tree(source, target, check=trio.from_thread.check_cancelled)
        status = os.fstat(source)
        os.fchown(target, mount.uid or status.st_uid, mount.gid or status.st_gid)
        os.fchmod(target, stat.S_IMODE(status.st_mode) if mount.mode is None else mount.mode)
    except OSError as error:
        kind = Exhausted if error.errno in (errno.ENOSPC, errno.EDQUOT) else Invalid
        raise kind(f"the cache {mount.id} can't be filled with {shown}: {error.strerror}") from None
    finally:
        os.close(target)
        os.close(source)
