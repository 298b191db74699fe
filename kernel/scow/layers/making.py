"""A snapshot made of a layer in a worker thread, whatever its form: cancelled soon, cleaned up, errors in words."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

import trio

from scow.layers.apply import Check
from scow.layers.extract import translated
from scow.layers.lower import LowerTree
from scow.layers.snapshots import SnapshotDirectory
from scow.model.storage import Snapshot, UnpackRequest

#: Fills what the store gave it (a directory or a file, as a descriptor); gives bytes used, where the store asks.
Build: TypeAlias = Callable[[int, Check], int]


async def make_snapshot(
    store: SnapshotDirectory, request: UnpackRequest, build: Build, *, lower: LowerTree | None, durable: bool
) -> Snapshot:
    """Let `build` make the request's snapshot, if nobody has yet, in a worker thread.

    `build` calls its second argument often, so that it can be cancelled. `lower` is what it needs of the layers below;
    it is closed in the end. Raises Corrupt, Exhausted, Denied, and what `build` raises.
    """
    return await trio.to_thread.run_sync(_make, store, request, build, lower, durable)


def _make(
    store: SnapshotDirectory, request: UnpackRequest, build: Build, lower: LowerTree | None, durable: bool
) -> Snapshot:
    check = trio.from_thread.check_cancelled
    try:
        store.sweep()
        return store.make(request.chain_id, lambda fd: build(fd, check), check=check, durable=durable)
    except OSError as error:
        raise translated(error, os.fsencode(error.filename or f"layer {request.layer.digest}")) from error
    finally:
        if lower is not None:
            lower.close()
