"""A layer's archive as a directory with overlayfs' own whiteouts, which fuse-overlayfs reads as well."""

from __future__ import annotations

from scow.layers.apply import Check, apply_layer
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.making import make_snapshot
from scow.layers.marks import write_overlay_marks
from scow.layers.snapshots import SnapshotDirectory
from scow.model.storage import Snapshot, UnpackRequest


async def unpack_directory(
    store: SnapshotDirectory, request: UnpackRequest, lower: LowerTree | None, limits: Limits, *, durable: bool
) -> Snapshot:
    """Make the snapshot. `lower` is the merged tree of the request's parents, None without any; closed in the end.

    Raises Corrupt, Exhausted, Denied, and what the blob's reader raises.
    """

    def build(root: int, check: Check) -> int:
        return apply_layer(
            request.blob,
            request.diff_id,
            root,
            lower=lower,
            settle=write_overlay_marks,
            check=check,
            limits=limits,
        )

    return await make_snapshot(store, request, build, lower=lower, durable=durable)
