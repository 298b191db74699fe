"""Both directions of `cp`, with docker's rules of where a copy goes; what flows between the two sides is tar."""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from scow.api import Invalid, NotFound, ScowError
from scow.engine import Place, pack, renamer, unpack_into
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import UsageError

if TYPE_CHECKING:
    from scow.engine import Engine


@dataclass(frozen=True, slots=True)
class Copy:
    """What both directions need."""

    cli: Cli
    engine: Engine
    owners: bool
    follow: bool


async def copy_out(copy: Copy, container: str, source: str, target: str) -> None:
    """From a container to this machine, or to standard output. Raises NotFound, Invalid."""
    status = await copy.engine.stat_path(container, source, follow=copy.follow)
    if status is None:
        raise NotFound(f"there is no {source} in container {container}")
    if target == "-":
        if copy.cli.is_tty(copy.cli.stdout):
            raise UsageError("an archive is not written to a terminal", hint="redirect the output")
        await copy.engine.copy_from(container, source, copy.cli.stdout, follow=copy.follow)
        return
    with _here() as root:
        there = _stat(root, target)
        if there is None or not stat.S_ISDIR(there.st_mode):
            with Place(root) as place:
                target = place.real(target)
        directory, rename = arrange(source, status, target, there)

        async def take(fd: int) -> None:
            await trio.to_thread.run_sync(partial(unpack_into, root, directory, fd, owners=copy.owners, rename=rename))

        await _through(partial(copy.engine.copy_from, container, source, follow=copy.follow), take)


async def copy_in(copy: Copy, source: str, container: str, target: str) -> None:
    """From this machine, or from an archive on standard input, into a container. Raises NotFound, Invalid."""
    if source == "-":
        await copy.engine.copy_to(container, target, copy.cli.stdin, owners=True)
        return
    with _here() as root:
        with Place(root) as place:
            status = place.find(source, follow=copy.follow).status
        there = await copy.engine.stat_path(container, target)
        if there is None or not stat.S_ISDIR(there.st_mode):
            # A link stays, and what it leads to is written, also when it isn't there yet.
            target = await copy.engine.real_path(container, target)
        directory, rename = arrange(source, status, target, there)

        async def give(fd: int) -> None:
            await trio.to_thread.run_sync(partial(pack, root, source, fd, follow=copy.follow))

        take = partial(copy.engine.copy_to, container, directory, owners=copy.owners, rename=rename)
        await _through(give, take)


def arrange(
    source: str, status: os.stat_result, target: str, there: os.stat_result | None
) -> tuple[str, Callable[[bytes], bytes]]:
    """The directory to unpack in, and how names change. Raises Invalid, NotFound. Pure."""
    name = os.path.basename(source.rstrip("/")) or "."
    is_directory = stat.S_ISDIR(status.st_mode)
    if there is not None and stat.S_ISDIR(there.st_mode):
        # Into it; `dir/.` without its name.
        inner = "." if name in (".", "..") else name
        return target, renamer(name, inner)
    if there is not None:
        if is_directory:
            raise Invalid(f"can't copy the directory {source} onto the file {target}")
        if target.endswith("/"):
            raise Invalid(f"{target} is not a directory")
    elif target.endswith("/") and not is_directory:
        raise NotFound(f"there is no directory {target}")
    parent, _, new = target.rstrip("/").removesuffix("/.").rstrip("/").rpartition("/")
    return parent + "/", renamer(name, new)


def _stat(root: int, path: str) -> os.stat_result | None:
    with Place(root) as place:
        try:
            return place.find(path, follow=True).status
        except NotFound:
            return None


class _here:  # noqa: N801 - used as a function
    """A descriptor of this machine's root directory, for a `with` block."""

    def __enter__(self) -> int:
        self._fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


async def _through(give: Callable[[int], Awaitable[None]], take: Callable[[int], Awaitable[None]]) -> None:
    """Run both with a pipe between them; the failure of one ends the other."""
    reader, writer = os.pipe2(os.O_CLOEXEC)

    failed: list[ScowError] = []

    async def run(work: Callable[[int], Awaitable[None]], fd: int) -> None:
        try:
            await work(fd)
        except ScowError as error:
            # What the other side says then is only that the pipe has broken.
            failed.append(error)
        finally:
            os.close(fd)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, give, writer)
        nursery.start_soon(run, take, reader)
    if failed:
        raise failed[0]
