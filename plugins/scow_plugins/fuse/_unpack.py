"""A layer's archive becomes a directory in overlayfs' own form, which fuse-overlayfs reads as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scow.api import Snapshot, UnpackRequest
from scow.api.layers import SnapshotDirectory, unpack_directory
from scow_plugins.fuse._view import lower_tree

if TYPE_CHECKING:
    from scow_plugins.fuse import Config


async def unpack(store: SnapshotDirectory, config: Config, request: UnpackRequest) -> Snapshot:
    """Make the snapshot. Raises Corrupt, Exhausted, Denied, Unsupported, and what the blob's reader raises."""
    lower = lower_tree(request.parents, config.program)
    return await unpack_directory(store, request, lower, config.limits, durable=config.sync)
