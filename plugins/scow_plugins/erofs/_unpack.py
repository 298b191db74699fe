"""A layer's archive becomes an image with overlayfs' own whiteouts, in one pass."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from scow.api import Snapshot, UnpackRequest
from scow.api.layers import Limits, LowerStack, SnapshotFiles, translated, write_image
from scow_plugins.erofs._layer import open_layer

if TYPE_CHECKING:
    from scow_plugins.erofs import Config


async def unpack(store: SnapshotFiles, config: Config, request: UnpackRequest) -> Snapshot:
    """Make the snapshot, in a worker thread that looks often whether it was cancelled."""
    return await trio.to_thread.run_sync(_unpack, store, config, request)


def _unpack(store: SnapshotFiles, config: Config, request: UnpackRequest) -> Snapshot:
    store.sweep()
    lower = LowerStack(request.parents, open_layer) if request.parents else None

    def build(fd: int) -> int:
        write_image(
            request.blob,
            request.diff_id,
            request.chain_id,
            fd,
            lower=lower,
            check=trio.from_thread.check_cancelled,
            limits=Limits(config.max_entries, config.max_layer_bytes),
            eager=config.sync,
        )
        return 0

    try:
        return store.make(request.chain_id, build, check=trio.from_thread.check_cancelled, durable=config.sync)
    except OSError as error:
        raise translated(error, os.fsencode(error.filename or f"layer {request.layer.digest}")) from error
    finally:
        if lower is not None:
            lower.close()
