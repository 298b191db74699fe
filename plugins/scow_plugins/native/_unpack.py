"""A layer's archive and a copy of all below it become one whole tree.

The archive comes first, into an empty directory; then what it neither replaces nor hides is copied from the parent. So
nothing is copied to be overwritten, and whiteouts never have to be told from files of the same layer.
"""

from __future__ import annotations

from scow.api import Snapshot, StorageConfig, UnpackRequest, Unsupported
from scow.api.layers import Check, LowerTree, SnapshotDirectory, Tree, apply_layer, copy_tree, make_snapshot


async def unpack(store: SnapshotDirectory, config: StorageConfig, request: UnpackRequest) -> Snapshot:
    """Make the snapshot. Raises Corrupt, Exhausted, Denied, Unsupported, and what the blob's reader raises."""
    refuse_strangers(request.parents)
    parent = request.parents[-1] if request.parents else None
    lower = LowerTree.of(parent.path) if parent is not None else None

    def build(root: int, check: Check) -> int:
        def settle(tree: Tree) -> None:
            if tree.lower is not None:
                copy_tree(tree.lower.fd, tree.root, merge=lambda path: not tree.covers(path), check=check)

        used = apply_layer(
            request.blob,
            request.diff_id,
            root,
            lower=lower,
            settle=settle,
            check=check,
            limits=config.limits,
        )
        return used + (store.usage(parent.chain_id) if parent is not None else 0)

    return await make_snapshot(store, request, build, lower=lower, durable=config.sync)


def refuse_strangers(layers: tuple[Snapshot, ...]) -> None:
    """Raises Unsupported for layers of which this driver has no copy."""
    for layer in layers:
        if layer.driver == "host":
            raise Unsupported("host: can't be had as a plain copy of the machine", hint="host: needs --storage overlay")
