"""A layer's archive and a copy of all below it become one whole tree.

The archive comes first, into an empty directory; then what it neither replaces nor hides is copied from the parent. So
nothing is copied to be overwritten, and whiteouts never have to be told from files of the same layer.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from scow.api import Snapshot, UnpackRequest, Unsupported
from scow.api.layers import Limits, LowerTree, SnapshotDirectory, Tree, apply_layer, copy_tree, translated

if TYPE_CHECKING:
    from scow_plugins.native import Config


async def unpack(store: SnapshotDirectory, config: Config, request: UnpackRequest) -> Snapshot:
    """Make the snapshot, in a worker thread that looks often whether it was cancelled."""
    refuse_strangers(request.parents)
    return await trio.to_thread.run_sync(_unpack, store, config, request)


def refuse_strangers(layers: tuple[Snapshot, ...]) -> None:
    """Raises Unsupported for layers of which this driver has no copy."""
    for layer in layers:
        if layer.driver == "host":
            raise Unsupported("host: can't be had as a plain copy of the machine", hint="host: needs --storage overlay")


def _unpack(store: SnapshotDirectory, config: Config, request: UnpackRequest) -> Snapshot:
    check = trio.from_thread.check_cancelled
    store.sweep()
    parent = request.parents[-1] if request.parents else None
    lower = LowerTree.of(parent.path) if parent is not None else None

    def settle(tree: Tree) -> None:
        if tree.lower is not None:
            copy_tree(tree.lower.fd, tree.root, merge=lambda path: not tree.covers(path), check=check)

    def build(root: int) -> int:
        used = apply_layer(
            request.blob,
            request.diff_id,
            root,
            lower=lower,
            settle=settle,
            check=check,
            limits=Limits(config.max_entries, config.max_layer_bytes),
        )
        return used + (store.usage(parent.chain_id) if parent is not None else 0)

    try:
        return store.make(request.chain_id, build, check=check, durable=config.sync)
    except OSError as error:
        raise translated(error, os.fsencode(error.filename or f"layer {request.layer.digest}")) from error
    finally:
        if lower is not None:
            lower.close()
