"""gc: make the store as small as asked, what was used longest ago first; and say why for everything."""

from __future__ import annotations

from collections import Counter

from scow.engine import buildgarbage
from scow.engine.core import Core
from scow.engine.garbage import sweep, unneeded
from scow.engine.marking import needed, parts_of
from scow.engine.types import Collection, Decision
from scow.engine.usage import Piece, Pieces, partial_bytes, pieces_of
from scow.model.digest import Digest
from scow.state import containers
from scow.state import images as rows


def collect(core: Core, keep: int, *, dry_run: bool = False) -> Collection:
    """Remove leftovers, then what builds have left, then unused images, until at most `keep` bytes are left. Blocks."""
    plan, doomed, layers_of_builds, before, after = _plan(core, keep)
    if dry_run:
        return Collection(tuple(plan), before, after)
    garbage: list[tuple[rows.Kind, Digest]] = []
    for row in doomed:
        parts = parts_of(core, row.manifest, row.root)
        garbage += [("blob", digest) for digest in {*parts.blobs, row.config}]
        garbage += [("layer", digest) for digest in parts.layers]
    # A container may have been made since we planned.
    used = _used(core)
    doomed = [row for row in doomed if str(row.manifest) not in used]
    rows.forget(core.database, (), [row.manifest for row in doomed], garbage)
    if doomed:
        from scow.engine.images import write_index

        write_index(core)
        for row in doomed:
            core.events.emit("image", "delete", str(row.config), name=str(row.config))
    built = buildgarbage.remove(core, layers_of_builds)
    swept = sweep(core, everything=True)
    return Collection(tuple(plan), before, before - swept.bytes - built.bytes, postponed=swept.postponed)


def _used(core: Core) -> dict[str, str]:
    return {each.spec.manifest: each.spec.name for each in containers.listing(core.database)}


def _plan(core: Core, keep: int) -> tuple[list[Decision], list[rows.ImageRow], tuple[buildgarbage.Item, ...], int, int]:
    sizes = Pieces(core)
    images = rows.all_images(core.database)
    last = rows.last_uses(core.database)
    names, used = rows.names_of(core.database), _used(core)
    pieces = {row.manifest: pieces_of(core, row) for row in images}
    shares = Counter(piece for each in pieces.values() for piece in each)
    stays = needed(core, caches=False)
    pinned: set[Piece] = {("blob", each) for each in stays.blobs} | {("layer", each) for each in stays.layers}
    left = _leftovers(core, sizes)
    items = buildgarbage.items_of(core, sizes)
    built = buildgarbage.cache_bytes(items, sizes)
    before = now = sizes.sum(pinned | set(shares)) + built + left
    plan = (
        [Decision("leftovers", "remove", "interrupted downloads and layers that no image names", left)] if left else []
    )
    now -= left
    old = buildgarbage.choose(items, sizes, everything=False, keep=max(built - max(now - keep, 0), 0), wanted=None)
    if items:
        many = f"{len(old.items)} of {len(items)} things that builds have left, the longest unused first"
        plan.append(Decision("build cache", "remove" if old.items else "keep", many, old.bytes if old.items else built))
    now -= old.bytes
    held = pinned - set(shares)  # by containers whose image is gone
    doomed: list[rows.ImageRow] = []
    freed: set[Piece] = set()
    for row in sorted(images, key=lambda row: last.get(str(row.manifest), 0.0)):
        name = ", ".join(names.get(str(row.manifest), ([], []))[0]) or str(row.config)
        moment = last.get(str(row.manifest), 0.0)
        free = {piece for piece in pieces[row.manifest] if shares[piece] == 1} - held
        size, shared = sizes.sum(free), sizes.sum(pieces[row.manifest] - free)
        if str(row.manifest) in used:
            plan.append(Decision(name, "keep", f"container {used[str(row.manifest)]} uses it", size, moment, shared))
        elif now <= keep:
            why = "the rest fits" if doomed or left or old.items else "all fits"
            plan.append(Decision(name, "keep", why, size, moment, shared))
        else:
            shares.subtract(pieces[row.manifest])
            now -= size
            freed |= free
            doomed.append(row)
            why = "no container uses it, and what stays was used later" if keep else "no container uses it"
            plan.append(Decision(name, "remove", why, size, moment, shared))
    # Nobody has them any more but the build cache.
    more = [item for item in items if not freed.isdisjoint(item.pieces) and item not in old.items]
    return plan, doomed, (*old.items, *more), before, now


def _leftovers(core: Core, sizes: Pieces) -> int:
    blobs, layers = unneeded(core, needed(core))
    found: list[Piece] = [*(("blob", blob) for blob in blobs), *(("layer", layer) for layer in layers)]
    return sizes.sum(found) + partial_bytes(core)
