"""A layer's archive as a directory with overlayfs' own whiteouts, which fuse-overlayfs reads as well."""

from __future__ import annotations

import os

import trio

from scow.layers.apply import apply_layer
from scow.layers.extract import translated
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.marks import write_overlay_marks
from scow.layers.snapshots import SnapshotDirectory
from scow.model.storage import Snapshot, UnpackRequest


async def unpack_directory(
    store: SnapshotDirectory, request: UnpackRequest, lower: LowerTree | None, limits: Limits, *, durable: bool
) -> Snapshot:
    """Make the snapshot, in a worker thread that looks often whether it was cancelled.

    `lower` is the merged tree of the request's parents, None without any; it is closed in the end. Raises Corrupt,
    Exhausted, Denied, and what the blob's reader raises.
    """
    return await trio.to_thread.run_sync(_unpack, store, request, lower, limits, durable)


def _unpack(
    store: SnapshotDirectory, request: UnpackRequest, lower: LowerTree | None, limits: Limits, durable: bool
) -> Snapshot:
    check = trio.from_thread.check_cancelled

    def build(root: int) -> int:
        return apply_layer(
            request.blob,
            request.diff_id,
            root,
            lower=lower,
            settle=write_overlay_marks,
            check=check,
            limits=limits,
        )

    try:
        store.sweep()
        return store.make(request.chain_id, build, check=check, durable=durable)
    except OSError as error:
        raise translated(error, os.fsencode(error.filename or f"layer {request.layer.digest}")) from error
    finally:
        if lower is not None:
            lower.close()
