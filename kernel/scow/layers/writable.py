"""A container's root on overlayfs: its image's layers, and a writable layer in its scratch directory on top."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from scow.errors import Conflict
from scow.layers.hiding import hide_engine, take_metadata
from scow.layers.removal import remove_tree
from scow.layers.stack import Opener, Options, explained, open_directory, opened, overlay, short_name
from scow.model.storage import MountRequest, Rootfs


@asynccontextmanager
async def overlay_mounted(
    request: MountRequest, engine_dirs: tuple[Path, ...], opener: Opener = open_directory
) -> AsyncIterator[Rootfs]:
    """Hold the mount; what was written stays in `scratch`. A container of `host:` doesn't see `engine_dirs`.

    `opener` opens each layer of the request. Raises Unsupported, Exhausted, Conflict.
    """
    with claimed_scratch(request.scratch):
        try:
            fd = _mount(request, engine_dirs, opener)
        except OSError as error:
            raise explained(error) from error
        try:
            yield Rootfs(request.driver, fd)
        finally:
            os.close(fd)


@contextmanager
def claimed_scratch(scratch: Path) -> Iterator[int]:
    """Hold the writable layer: two overlays on one destroy it, and the kernel doesn't stop that with `index=off`.

    Gives the descriptor that has the lock; a process that inherits it holds the lock as well. Raises Conflict, OSError.
    """
    fd = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                "the container's writable layer is mounted already", hint="stop the container first"
            ) from None
        try:
            yield fd
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _mount(request: MountRequest, engine_dirs: tuple[Path, ...], opener: Opener) -> int:
    with opened(reversed(request.layers), opener) as names:
        upper, work, empty = writable_layer(request, engine_dirs, Path(names[0]) if names else None)
        _forget_volatile(work)
        with _short([upper, work, *([] if names else [empty])]) as (upper_name, work_name, *lowest):
            options: Options = [("upperdir", upper_name), ("workdir", work_name)]
            if request.volatile:
                options.append(("volatile", None))
            return overlay(names or lowest, options)


def writable_layer(request: MountRequest, hidden: tuple[Path, ...], top: Path | None) -> tuple[Path, Path, Path]:
    """The upper and work directories in a container's scratch, made at its first start, and an empty one.

    The upper one gets its name last, so that one that exists is complete. `top` is the topmost layer, None when there
    is none; `hidden` are the engine's directories, which a container of `host:` doesn't see. Raises OSError.
    """
    upper, work, empty = (request.scratch / name for name in ("upper", "work", "empty"))
    if upper.exists():
        return upper, work, empty
    work.mkdir(mode=0o700, exist_ok=True)
    if top is None:
        # overlayfs wants at least one lower layer.
        empty.mkdir(mode=0o755, exist_ok=True)
    new = request.scratch / "upper.new"
    new.mkdir(mode=0o755, exist_ok=True)
    new.chmod(0o755)
    if any(layer.driver == "host" for layer in request.layers):
        hide_engine(new, hidden)
    if top is not None:
        # The root directory's own metadata is that of the topmost layer.
        take_metadata(new, top)
    new.rename(upper)
    return upper, work, empty


@contextmanager
def _short(paths: list[Path]) -> Iterator[list[str]]:
    """Short names of directories, valid within the block."""
    fds = []
    try:
        for path in paths:
            fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        yield [short_name(fd) for fd in fds]
    finally:
        for fd in fds:
            os.close(fd)


def _forget_volatile(work: Path) -> None:
    """A volatile mount leaves a mark that refuses the next one, lest unsynced data be taken for good.

    Here it is the same container's own layer, started again within its life: what it wrote is in the page cache, and
    after a power failure a container that asked for `volatile` is gone altogether.
    """
    try:
        fd = os.open(work / "work" / "incompat", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_tree(fd, "volatile")
    finally:
        os.close(fd)
