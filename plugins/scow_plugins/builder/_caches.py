"""Caches of other machines: looked at before a build, asked for layers during it, written after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import trio

from scow.api import Platform, ScowError
from scow.engine.builders import BuildRequest, CacheTarget
from scow.engine.building import Layer, Remote, Stack, Workbench, compose
from scow_plugins.builder._cachedoc import NAME, Known, layer_of, read, write

if TYPE_CHECKING:
    from scow.engine.building import Record
    from scow_plugins.builder._solve import Solver

_INLINE: Final = "BUILDKIT_INLINE_CACHE"


@dataclass(frozen=True, slots=True)
class _Opened:
    """One cache that is there."""

    name: str
    remote: Remote
    known: Known


class Imported:
    """What --cache-from names. A cache that can't be had is said, and no reason not to build."""

    def __init__(self, opened: Sequence[_Opened] = ()) -> None:
        self._opened = opened
        self._failed: set[str] = set()

    def memo(self, key: str) -> str | None:
        """A value that depends on nothing but its key."""
        return next((each.known.memos[key] for each in self._opened if key in each.known.memos), None)

    async def bring(self, solver: Solver, key: str, below: Stack) -> Record | None:
        """A step's layer, put on top of its stack; None when no cache has it, or none gives it."""
        for opened in self._opened:
            record = opened.known.records.get(key)
            if record is None or opened.name in self._failed:
                continue
            layer = layer_of(record)
            try:
                await solver.bench.take(opened.remote, layer)
                if await solver.bench.again(below, layer):
                    return record
            except ScowError as error:
                self._failed.add(opened.name)
                solver.note(f"the cache {opened.name} isn't used any more: {error.message}")
        return None


async def open_caches(solver: Solver) -> Imported:
    """Look at all caches that the request names, at once."""
    request = solver.request
    if not request.cache_from or request.no_cache:
        return Imported()
    found: dict[str, _Opened] = {}

    async def one(place: str) -> None:
        with solver.showing(f"importing cache from {place}"):
            try:
                remote = await solver.bench.look(place, request.platform)
                found[place] = _Opened(place, remote, read(remote.config, remote.layers, place))
            except ScowError as error:
                solver.note(f"no cache from {place}: {error.message}")

    async with trio.open_nursery() as nursery:
        for place in request.cache_from:
            nursery.start_soon(one, place)
    return Imported([found[place] for place in request.cache_from if place in found])


def inline(solver: Solver, request: BuildRequest, stack: Stack) -> dict[str, Any]:
    """What an image's configuration says of its own layers; empty unless it is wanted."""
    wanted = any(target.kind == "inline" for target in request.cache_to)
    if not wanted and request.build_args.get(_INLINE, "").lower() not in ("1", "true"):
        return {}
    return {NAME: write(solver.noted, {}, stack)}


async def export_caches(solver: Solver, stack: Stack) -> None:
    """Write the caches that the request wants. Raises as `Workbench.send`."""
    for target in solver.request.cache_to:
        if target.kind == "inline":
            continue
        with solver.showing(f"exporting cache to {target.place}"):
            try:
                await _export(solver.bench, solver, target, stack)
            except ScowError as error:
                if not target.ignore_error:
                    raise
                solver.note(f"the cache {target.place} was not written: {error.message}")


async def _export(bench: Workbench, solver: Solver, target: CacheTarget, stack: Stack) -> None:
    mine = {layer.diff_id for layer in stack}
    layers: dict[str, Layer] = {}
    for each in solver.noted:
        layer = layer_of(each.record)
        if target.everything or layer.diff_id in mine:
            layers.setdefault(each.record.layer, layer)
    ordered = [layers[name] for name in sorted(layers)]
    config = {**_platform(solver.request.platform), NAME: write(solver.noted, solver.memos, ordered)}
    await bench.send(compose(ordered, config), target.place)


def _platform(platform: Platform) -> dict[str, str]:
    return {"architecture": platform.architecture, "os": platform.os}
