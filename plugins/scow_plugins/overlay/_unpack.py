"""A layer's archive becomes a directory with overlayfs' own whiteouts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from scow.api import Snapshot, UnpackRequest
from scow.api.layers import (
    Limits,
    LowerTree,
    SnapshotDirectory,
    apply_layer,
    merged_view,
    translated,
    write_overlay_marks,
)

if TYPE_CHECKING:
    from scow_plugins.overlay import Config


async def unpack(store: SnapshotDirectory, config: Config, request: UnpackRequest) -> Snapshot:
    """Make the snapshot, in a worker thread that looks often whether it was cancelled."""
    return await trio.to_thread.run_sync(_unpack, store, config, request)


def _unpack(store: SnapshotDirectory, config: Config, request: UnpackRequest) -> Snapshot:
    store.sweep()
    lower = LowerTree(lambda: merged_view(request.parents)) if request.parents else None

    def build(root: int) -> int:
        return apply_layer(
            request.blob,
            request.diff_id,
            root,
            lower=lower,
            settle=write_overlay_marks,
            check=trio.from_thread.check_cancelled,
            limits=Limits(config.max_entries, config.max_layer_bytes),
        )

    try:
        return store.make(request.chain_id, build, check=trio.from_thread.check_cancelled, durable=config.sync)
    except OSError as error:
        raise translated(error, os.fsencode(error.filename or f"layer {request.layer.digest}")) from error
    finally:
        if lower is not None:
            lower.close()
