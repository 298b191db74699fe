"""The build cache as things that take space: what there is, what uses it, and what goes when it is too much.

An entry is a layer that a step has made, a cache mount, or the digests of a context's files. What somebody builds with,
and what others are built on, stays; of the rest the longest unused goes first. Records go before files, and files only
when nobody works with the store (`scow.engine.garbage`).
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import structlog

from scow.engine.core import Core
from scow.engine.garbage import in_thread, sweep
from scow.engine.marking import needed
from scow.engine.types import BuildCacheEntry, BuildCacheRemoval
from scow.engine.usage import Piece, Pieces, tree_bytes
from scow.errors import NotFound, ScowError
from scow.layers.removal import delete
from scow.model.digest import Digest
from scow.state import cachemounts
from scow.state import images as rows
from scow.state.buildcache import BuildCache, Entry
from scow.state.cachemounts import CacheMount
from scow.state.liveness import is_owned

#: How often everything is looked at after a build although the layers alone aren't too much, in seconds.
_PERIOD: Final = 600
#: Without a limit in the configuration: this part of the disk.
_SHARE: Final = 10
Wanted = Callable[[BuildCacheEntry], bool]


@dataclass(frozen=True, slots=True)
class Item:
    """An entry with what it stands for. `last`: when it, or something that is built on it, was last used.

    `pieces` are its blob and its layer, `own` those of them that no image and no container has.
    """

    shown: BuildCacheEntry
    pieces: tuple[Piece, ...]
    own: tuple[Piece, ...]
    last: float
    record: Entry | None = None
    mount: CacheMount | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Doomed:
    """What is to go, and how many bytes that gives."""

    items: tuple[Item, ...]
    bytes: int
    #: What the cache takes before; layers that images have, too, are theirs.
    before: int


def items_of(core: Core, sizes: Pieces) -> list[Item]:
    """Every entry, the longest unused first, those that are built on others before them."""
    path = core.paths.build_cache
    began = _oldest_build(core)
    found = _layers(core, path, sizes, began) if path.exists() else []
    found += _mounts(core)
    found += _indexes(core, began)
    return sorted(found, key=lambda item: item.last)


def _layers(core: Core, path: Path, sizes: Pieces, began: float) -> list[Item]:
    cache = BuildCache(path)
    try:
        entries = cache.entries()
    finally:
        cache.close()
    stays = needed(core, caches=False)
    by_chain = {entry.chain: entry for entry in entries}
    last = _last_uses(entries)
    found = []
    # Those that were used last are the deepest: reversed, nothing comes before what is built on it.
    for entry in reversed(entries):
        pieces: tuple[Piece, ...] = (("blob", Digest.parse(entry.digest)), ("layer", Digest.parse(entry.chain)))
        own = tuple(piece for piece in pieces if piece[1] not in (stays.blobs if piece[0] == "blob" else stays.layers))
        below = by_chain.get(entry.parent)
        shown = BuildCacheEntry(
            id=entry.key[:25],
            kind="regular",
            description=entry.title,
            created=entry.created,
            used=entry.used,
            uses=entry.uses,
            size=sizes.sum(pieces),
            in_use=last[entry.key] >= began,
            shared=not own,
            mutable=False,
            parents=(below.key[:25],) if below is not None else (),
        )
        found.append(Item(shown, pieces, own, last[entry.key], entry))
    return found


def _last_uses(entries: Sequence[Entry]) -> dict[str, float]:
    """For each key, when it was last used, or anything that is built on it."""
    by_chain: dict[str, list[Entry]] = {}
    for entry in entries:
        by_chain.setdefault(entry.chain, []).append(entry)
    last = {entry.key: entry.used for entry in entries}
    for entry in sorted(entries, key=lambda each: each.used, reverse=True):
        moment = last[entry.key]
        parent, seen = entry.parent, {entry.chain}
        while parent and parent not in seen:
            seen.add(parent)
            below = [each for each in by_chain.get(parent, ()) if last[each.key] < moment]
            for each in below:
                last[each.key] = moment
            parent = below[0].parent if below else ""
    return last


def _mounts(core: Core) -> list[Item]:
    base = core.paths.caches
    found = []
    for mount in cachemounts.listing(base):
        shown = BuildCacheEntry(
            id=mount.name[:25] + (f"-{mount.number}" if mount.number else ""),
            kind="exec.cachemount",
            description=f"cache mount {mount.id}" + (f", begun as {mount.origin}" if mount.origin else ""),
            created=mount.created,
            used=mount.used,
            uses=None,
            size=tree_bytes(base / mount.name),
            in_use=mount.in_use,
            shared=False,
            mutable=True,
        )
        found.append(Item(shown, (), (), mount.used, mount=mount))
    return found


def _indexes(core: Core, began: float) -> list[Item]:
    found = []
    for path in (core.paths.build / "index").glob("[!.]*"):
        with suppress(OSError):
            status = path.stat()
            shown = BuildCacheEntry(
                id=path.name[:25],
                kind="source.local",
                description="digests of a context's files",
                created=status.st_mtime,
                used=status.st_mtime,
                uses=None,
                size=status.st_blocks * 512,
                in_use=status.st_mtime >= began,
                shared=False,
                mutable=True,
            )
            found.append(Item(shown, (), (), shown.used, path=path))
    return found


def _oldest_build(core: Core) -> float:
    """When the oldest build that runs has begun: what was used since then is in use."""
    began = math.inf
    for work in (core.paths.build / "work").glob("*"):
        with suppress(OSError):
            moment = (work / "lock").stat().st_mtime
            if moment < began and is_owned(work):
                began = moment
    return began


def cache_bytes(items: Iterable[Item], sizes: Pieces) -> int:
    """What entries take; everything counts once, and what images have, too, is theirs."""
    items = list(items)
    pieces = {piece for item in items for piece in item.own}
    return sizes.sum(pieces) + sum(item.shown.size for item in items if not item.pieces)


def choose(
    items: Sequence[Item], sizes: Pieces, *, everything: bool, keep: int | None, wanted: Wanted | None
) -> Doomed:
    """What goes, until the cache takes at most `keep` bytes (None: no matter).

    Nothing goes that something which stays is built on.
    """
    shares = Counter(piece for item in items for piece in item.own)
    before = total = cache_bytes(items, sizes)
    above = Counter(item.record.parent for item in items if item.record is not None)
    doomed = []
    for item in items:
        shown = item.shown
        if keep is not None and total <= keep:
            break
        if shown.in_use or (shown.shared and not everything) or (wanted is not None and not wanted(shown)):
            continue
        if item.record is not None and above[item.record.chain]:
            continue
        doomed.append(item)
        if item.record is not None:
            above[item.record.parent] -= 1
        shares.subtract(item.own)
        total -= sizes.sum(piece for piece in item.own if not shares[piece])
        total -= 0 if item.pieces else shown.size
    return Doomed(tuple(doomed), before - total, before)


def entries(core: Core, sizes: Pieces | None = None) -> tuple[BuildCacheEntry, ...]:
    """The build cache, what was used last first. Blocks."""
    sizes = sizes or Pieces(core)
    seen: set[Piece] = set()
    found = []
    for item in reversed(items_of(core, sizes)):
        own = [piece for piece in item.own or item.pieces if piece not in seen]
        seen |= set(own)
        found.append(replace(item.shown, own=sizes.sum(own) if item.pieces else item.shown.size))
    return tuple(found)


def prune(
    core: Core, *, everything: bool = False, keep: int | None = None, wanted: Wanted | None = None
) -> BuildCacheRemoval:
    """Remove entries, the longest unused first; with `keep`, only until at most so many bytes are left. Blocks.

    Without `everything`, entries whose layers images have stay: they take no space of their own.
    """
    sizes = Pieces(core)
    doomed = choose(items_of(core, sizes), sizes, everything=everything, keep=keep, wanted=wanted)
    return remove(core, doomed.items)


def remove(core: Core, doomed: Iterable[Item]) -> BuildCacheRemoval:
    """Remove entries; those that somebody uses now stay."""
    items = list(doomed)
    gone, freed = _forget(core, [item for item in items if item.record is not None]), 0
    for item in items:
        with suppress(OSError, NotFound):
            if item.mount is not None:
                if not discard(core.paths.caches, item.mount):
                    continue
            elif item.path is not None:
                item.path.unlink()
            else:
                continue
            freed += item.shown.size
            gone.append(item)
    _tidy(core)
    swept = sweep(core)
    return BuildCacheRemoval(
        tuple(item.shown.id for item in gone), freed + swept.bytes, postponed=swept.postponed and bool(gone)
    )


def _forget(core: Core, items: list[Item]) -> list[Item]:
    if not items:
        return []
    cache = BuildCache(core.paths.build_cache)
    try:
        keys = {entry.key for entry in cache.forget([item.record for item in items if item.record is not None])}
    finally:
        cache.close()
    gone = [item for item in items if item.record is not None and item.record.key in keys]
    rows.forget(core.database, (), (), [piece for item in gone for piece in item.pieces])
    return gone


def discard(base: Path, mount: CacheMount) -> bool:
    """Remove a cache mount; False when somebody uses it. Raises NotFound, OSError."""
    gone = cachemounts.remove(base, mount)
    if gone is None:
        return False
    delete(gone)
    return True


def _tidy(core: Core) -> None:
    for path in cachemounts.leftovers(core.paths.caches):
        with suppress(OSError):
            delete(path)


async def collect(core: Core, *, grown: bool) -> None:
    """Keep the cache within its limits, after a build. Quick when there is nothing to do.

    `grown`: the build has made something; else the cache is looked at now and then only.
    """
    if _due(core, limits(core)[0], grown=grown):
        await in_thread(core, _collect)


def _collect(core: Core) -> None:
    """Never raises: a build that went well isn't to fail in the end."""
    try:
        most, oldest = limits(core)
        if oldest:
            before = time.time() - oldest
            prune(core, wanted=lambda entry: entry.used < before)
        prune(core, keep=most)
    except (ScowError, OSError) as error:
        structlog.get_logger("scow").warning("build.collect.failed", reason=str(error))


def limits(core: Core) -> tuple[int, float]:
    """The most bytes that the cache may take, and seconds that something stays unused (0: for ever)."""
    said = core.config.build
    if said.cache_max_bytes < 0:
        return 1 << 62, said.cache_max_age
    if said.cache_max_bytes:
        return said.cache_max_bytes, said.cache_max_age
    disk = os.statvfs(core.paths.root)
    return disk.f_blocks * disk.f_frsize // _SHARE, said.cache_max_age


def _due(core: Core, most: int, *, grown: bool) -> bool:
    """Whether it is worth a look."""
    if grown and _is_large(core, most):
        return True
    marker = core.paths.build / "collected"
    now = time.time()
    with suppress(OSError):
        if 0 <= now - marker.stat().st_mtime < _PERIOD:
            return False
    with suppress(OSError):
        marker.touch(0o600)
    return True


def _is_large(core: Core, most: int) -> bool:
    """Archives and what they were unpacked to take about the same."""
    cache = BuildCache(core.paths.build_cache)
    try:
        return 2 * cache.bytes() > most
    finally:
        cache.close()
