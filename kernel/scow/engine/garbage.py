"""Taking from the disk what nobody names any more.

Records go first, in one transaction; files are swept afterwards, with the store to ourselves. A kill between the two
leaves garbage and a note of it, never an image with a hole. Somebody who pulls keeps the sweep away; it is then made up
for when they are done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import structlog
import trio

from scow.engine.core import Core
from scow.engine.marking import Needed, needed, snapshot_stores
from scow.errors import NotFound
from scow.model.digest import Digest
from scow.state import images as rows
from scow.state.database import Database
from scow.state.storelock import store_alone, store_shared
from scow.sys.later import unlink_later

T = TypeVar("T")

#: How long a removal waits for those who work with the store before it leaves the sweep to them, in seconds.
PATIENCE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep has removed. `postponed`: others were at work, and the last of them will do it."""

    blobs: tuple[Digest, ...] = ()
    #: Chain IDs of layers.
    layers: tuple[Digest, ...] = ()
    #: Interrupted downloads.
    partial: int = 0
    bytes: int = 0
    postponed: bool = False


@asynccontextmanager
async def bringing_in(core: Core) -> AsyncIterator[None]:
    """Hold this while there are blobs or layers that no record names yet: nothing is swept meanwhile."""
    try:
        async with store_shared(core.paths.root):
            yield
    finally:
        if rows.garbage(core.database):
            # Somebody removed images while we were at it, and left this to us.
            with trio.CancelScope(shield=True):
                await in_thread(core, sweep, patience=0)


async def in_thread(core: Core, work: Callable[..., T], *arguments: object, **options: object) -> T:
    """Run `work(core, …)` in a worker thread, with a connection of its own (SQLite's belong to one thread)."""

    def run() -> T:
        own = Database(core.paths.database)
        try:
            return work(replace(core, database=own), *arguments, **options)
        finally:
            own.close()

    return await trio.to_thread.run_sync(run)


def sweep(core: Core, *, everything: bool = False, patience: float = PATIENCE) -> Swept:
    """Remove what removed images have left and nobody else needs; with `everything`, all that nobody needs.

    Blocks. Another command's work is never in the way: then the sweep is postponed.
    """
    total = _sweep(core, everything=everything, patience=patience)
    while not total.postponed and rows.garbage(core.database):
        # Noted while we swept, by somebody who then found the store taken.
        more = _sweep(core, everything=False, patience=0)
        if more.postponed:
            break
        total = replace(
            total, blobs=total.blobs + more.blobs, layers=total.layers + more.layers, bytes=total.bytes + more.bytes
        )
    return total


def _sweep(core: Core, *, everything: bool, patience: float) -> Swept:
    with store_alone(core.paths.root, patience) as alone:
        if not alone:
            return Swept(postponed=True)
        noted = rows.garbage(core.database)
        stays = needed(core)
        if stays.damaged:
            # What they consist of isn't known, so nothing can be said to be garbage.
            structlog.get_logger("scow").warning(
                "sweep.skipped", reason="damaged images", images=[str(each) for each in stays.damaged]
            )
            return Swept(postponed=True)
        blobs, layers = _candidates(core, noted, everything)
        swept = _remove(core, blobs - stays.blobs, layers - stays.layers)
        for path in core.content.abandoned():
            path.unlink(missing_ok=True)
        if everything:
            swept = _drop_partial(core, swept)
        rows.swept(core.database, noted)
        return swept


def _candidates(core: Core, noted: Iterable[tuple[str, Digest]], everything: bool) -> tuple[set[Digest], set[Digest]]:
    noted = list(noted)
    blobs = {digest for kind, digest in noted if kind == "blob"}
    layers = {digest for kind, digest in noted if kind == "layer"}
    if everything:
        blobs |= core.content.blobs()
        for _, store in snapshot_stores(core):
            layers |= set(store.snapshots())
    return blobs, layers


def unneeded(core: Core, stays: Needed) -> tuple[set[Digest], set[Digest]]:
    """Blobs and layers on disk that nobody names."""
    blobs, layers = _candidates(core, (), everything=True)
    return blobs - stays.blobs, layers - stays.layers


def _remove(core: Core, blobs: Iterable[Digest], layers: Iterable[Digest]) -> Swept:
    count = 0
    gone_layers, gone_blobs = [], []
    for layer in sorted(layers):
        there = False
        for _, store in snapshot_stores(core):
            with suppress(NotFound):
                if store.find(layer) is not None and layer in store.snapshots():
                    count += store.usage(layer)
                    store.remove(layer)
                    there = True
        if there:
            gone_layers.append(layer)
    for blob in sorted(blobs):
        path = core.content.blob(blob)
        with suppress(FileNotFoundError):
            count += disk_bytes(path)
            unlink_later(path)
            gone_blobs.append(blob)
    return Swept(tuple(gone_blobs), tuple(gone_layers), 0, count)


def _drop_partial(core: Core, swept: Swept) -> Swept:
    """Interrupted downloads and what killed processes have left in the plugins' own places."""
    count, size = 0, 0
    for path in core.content.partial():
        with suppress(FileNotFoundError):
            size += disk_bytes(path)
            path.unlink()
            count += 1
    for path in core.paths.root.glob("fsck-*"):
        # A killed fsck's trial; a living one holds the store.
        shutil.rmtree(path, ignore_errors=True)
    for _, store in snapshot_stores(core):
        tidy = getattr(store, "sweep", None)
        if tidy is not None:
            tidy()
    return replace(swept, partial=count, bytes=swept.bytes + size)


def disk_bytes(path: Path) -> int:
    """What a file takes on disk. Raises OSError."""
    return os.stat(path).st_blocks * 512
