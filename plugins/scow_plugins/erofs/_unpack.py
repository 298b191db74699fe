"""A layer's archive becomes an image with overlayfs' own whiteouts, in one pass."""

from __future__ import annotations

from scow.api import Snapshot, StorageConfig, UnpackRequest
from scow.api.layers import Check, LowerStack, SnapshotDirectory, make_snapshot, write_image
from scow_plugins.erofs._layer import open_layer


async def unpack(store: SnapshotDirectory, config: StorageConfig, request: UnpackRequest) -> Snapshot:
    """Make the snapshot. Raises Corrupt, Exhausted, and what the blob's reader raises."""
    lower = LowerStack(request.parents, open_layer) if request.parents else None

    def build(fd: int, check: Check) -> int:
        write_image(
            request.blob,
            request.diff_id,
            request.chain_id,
            fd,
            lower=lower,
            check=check,
            limits=config.limits,
            eager=config.sync,
        )
        return 0

    return await make_snapshot(store, request, build, lower=lower, durable=config.sync)
