"""One layer from its blob into an empty directory: inflate, hash, unpack, compare with the diff ID."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from scow.layers.attributes import UNSAID
from scow.layers.extract import Extractor
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.stream import LayerStream
from scow.layers.tar import TarReader
from scow.layers.tree import Tree
from scow.model.digest import Digest
from scow.model.storage import Blob

#: Expresses in the tree what the layer hides; called when all entries are there and the digest is right.
Settle: TypeAlias = Callable[[Tree], None]
#: Called often; raises to stop (trio.from_thread.check_cancelled).
Check: TypeAlias = Callable[[], None]


def apply_layer(
    blob: Blob,
    diff_id: Digest,
    root: int,
    *,
    lower: LowerTree | None,
    settle: Settle,
    check: Check,
    limits: Limits,
    owners: bool = True,
) -> int:
    """Unpack into the empty directory `root`; blocks, so call it in a worker thread. Gives bytes used on disk.

    The caller removes what is there when this fails. Raises Corrupt (archive, digest), Exhausted (limits, disk),
    Denied, and what the blob's reader or `check` raises.
    """
    tree = Tree(root, lower, limits)
    extractor = Extractor(tree, limits, owners=owners)
    try:
        with LayerStream(blob.open(), blob.descriptor.size, diff_id.algorithm, check) as stream:
            reader = TarReader(stream.chunk)
            for entry in reader:
                extractor.add(entry, reader.data)
            reader.drain()
            stream.verify(diff_id)
        extractor.drop_links()
        _root(tree)
        settle(tree)
        extractor.seal()
        return extractor.usage
    finally:
        tree.close()


def _root(tree: Tree) -> None:
    """A layer that says nothing of the root directory leaves it as it was below."""
    if b"" not in tree.pending:
        tree.adopt(b"", UNSAID if tree.lower is None else tree.lower.attributes(b""))
