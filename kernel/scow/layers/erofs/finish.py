"""A layer's tree into its image: whiteouts, directories, numbers of names, the first block.

Directories' inodes follow each other in blocks of their own, so that all node numbers are known before the first
entry that names one is written; what doesn't fit behind an inode comes after them.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from scow.errors import Corrupt
from scow.layers.attributes import UNSAID
from scow.layers.erofs import directories as entries
from scow.layers.erofs import format as disk
from scow.layers.erofs.format import BLOCK, BLOCK_BITS, INODE, SLOT
from scow.layers.erofs.image import Image, Meta, Piece
from scow.layers.erofs.tree import KIND, KIND_BITS, Directory, LayerTree, Leaf
from scow.layers.erofs.xattrs import OPAQUE, encoded

#: How much of the directories is gathered before it is written.
_GATHER: Final = 1 << 20


def write_tree(image: Image, tree: LayerTree, links: Mapping[Leaf, int], uuid: bytes) -> None:
    """Complete the image. Raises Corrupt, Exhausted, OSError."""
    root = tree.root
    if root.attributes is None:
        root.attributes = UNSAID if tree.lower is None else tree.lower.attributes(b"")
    _mark(image, tree)
    image.close_files()
    for leaf, count in links.items():
        if count > 1:
            image.set_links(leaf >> KIND_BITS, count)
    _Directories(image, tree).write(uuid, sum(count - 1 for count in links.values() if count > 1))


def _mark(image: Image, tree: LayerTree) -> None:
    """Whiteouts as overlayfs reads them: 0:0 devices, opaque directories (overlayfs.rst)."""
    lower = tree.lower
    if lower is None:
        for directory in tree.directories():
            directory.opaque = False
        return
    root = tree.root
    if root.opaque:
        # overlayfs merges the layers' roots whatever their attributes say.
        root.opaque = False
        root.hidden = (root.hidden or set()) | set(lower.names())
    hiding = [directory for directory in tree.directories() if directory.hidden]
    # All before any: a directory that a whiteout makes opaque must not change what the next one sees.
    needed = [(directory, name) for directory in hiding for name in _needed(tree, directory)]
    whiteout = 0
    for directory, name in needed:
        there = directory.children.get(name)
        if isinstance(there, Directory):
            there.opaque = True
        elif there is None:
            # One inode with many names, as overlayfs itself makes them.
            whiteout = whiteout or image.node(Meta(stat.S_IFCHR, 0, 0, 0, b""))
            directory.children[name] = whiteout << KIND_BITS | disk.CHR


def _needed(tree: LayerTree, directory: Directory) -> Iterator[bytes]:
    """Where there is something to hide: in a directory that isn't merged overlayfs shows whiteouts as they are."""
    if tree.lower is None or directory.covered():
        return
    path = directory.path()
    for name in sorted(directory.hidden or ()):
        if tree.lower.stat(path + b"/" + name if path else name) is not None:
            yield name


class _Plan(NamedTuple):
    """A directory's shape. `inline`: its last block's entries stand behind the inode."""

    directory: Directory
    counts: list[int]
    used: int
    inline: bool
    xattrs: bytes


class _Directories:
    """Plans all directories, then writes them in the same order."""

    def __init__(self, image: Image, tree: LayerTree) -> None:
        self._image = image
        self._all = list(tree.directories())

    def write(self, uuid: bytes, extra_names: int) -> None:
        """`extra_names` is how many more names than inodes there are among the leaves."""
        plans = [self._plan_root()]
        at, leaves = 0, 0
        for directory in self._all[1:]:
            plan, at = self._plan(directory, at)
            plans.append(plan)
        base = self._image.reserve(at)
        for directory in self._all[1:]:
            directory.nid += base // SLOT
        blocks = sum(len(plan.counts) - plan.inline for plan in plans)
        leaves = sum(sum(type(child) is int for child in directory.children.values()) for directory in self._all)
        head = self._write(plans, base, self._image.reserve(blocks * BLOCK))
        self._image.seal(uuid, head, len(self._all) + leaves - extra_names)

    def _plan_root(self) -> _Plan:
        root = self._all[0]
        root.nid = disk.ROOT_OFFSET // SLOT
        plan = self._sized(root, BLOCK - disk.ROOT_OFFSET)
        if disk.ROOT_OFFSET + INODE + len(plan.xattrs) > BLOCK:
            raise Corrupt("layer has too many extended attributes on its root directory")
        return plan

    def _plan(self, directory: Directory, at: int) -> tuple[_Plan, int]:
        plan = self._sized(directory, BLOCK)
        need = INODE + len(plan.xattrs) + (plan.used if plan.inline else 0)
        if at % BLOCK + need > BLOCK:
            at = (at + BLOCK - 1) & -BLOCK
        directory.nid = at // SLOT
        return plan, (at + need + SLOT - 1) & -SLOT

    def _sized(self, directory: Directory, room: int) -> _Plan:
        assert directory.attributes is not None
        xattrs = encoded(stat.S_IFDIR, directory.attributes.xattrs, OPAQUE if directory.opaque else ())
        counts, used = entries.split(_names(directory))
        return _Plan(directory, counts, used, INODE + len(xattrs) + used <= room, xattrs)

    def _write(self, plans: list[_Plan], base: int, place: int) -> bytes:
        """Write all but the root's inode, which is given back; blocks go to `place` on."""
        inodes, blocks = _Stream(self._image, base), _Stream(self._image, place)
        head = b""
        for number, plan in enumerate(plans):
            children = plan.directory.children
            names = _names(plan.directory)
            parts = list(
                entries.blocks(names, [_target(plan.directory, children, name) for name in names], plan.counts)
            )
            last = parts.pop() if plan.inline else b""
            inode = self._inode(plan, blocks.at) + plan.xattrs + last
            for part in parts:
                blocks.add(blocks.at, part + bytes(-len(part) % BLOCK))
            if number:
                inodes.add(plan.directory.nid * SLOT, inode)
            else:
                head = inode
        inodes.flush()
        blocks.flush()
        return head

    def _inode(self, plan: _Plan, place: int) -> bytes:
        directory, size = plan.directory, (len(plan.counts) - 1) * BLOCK + plan.used
        assert directory.attributes is not None
        mode, uid, gid, mtime, _ = directory.attributes
        below = sum(type(child) is Directory for child in directory.children.values())
        stored = len(plan.counts) > plan.inline
        return disk.inode(
            disk.FLAT_INLINE if plan.inline else disk.FLAT_PLAIN, len(plan.xattrs), stat.S_IFDIR | mode, size,
            place >> BLOCK_BITS if stored else 0, self._image.next_number(), uid, gid, mtime, 2 + below,
        )  # fmt: skip


def _names(directory: Directory) -> list[bytes]:
    return sorted([b".", b"..", *directory.children])


def _target(here: Directory, children: dict[bytes, Directory | Leaf], name: bytes) -> tuple[int, int]:
    """The node number and kind behind a name."""
    child = children.get(name)
    if child is None:
        return (here if name == b"." else here.parent or here).nid, disk.DIR
    if isinstance(child, Directory):
        return child.nid, disk.DIR
    return child >> KIND_BITS, child & KIND


class _Stream:
    """Ascending writes, gathered; what lies between them stays zero."""

    def __init__(self, image: Image, at: int) -> None:
        self._image = image
        self.at = self._start = at
        self._pieces: list[Piece] = []

    def add(self, offset: int, data: bytes) -> None:
        if offset > self.at:
            self._pieces.append(bytes(offset - self.at))
        self._pieces.append(data)
        self.at = offset + len(data)
        if self.at - self._start >= _GATHER or len(self._pieces) > 900:
            self.flush()

    def flush(self) -> None:
        if self._pieces:
            self._image.write(self._start, self._pieces)
        self._start, self._pieces = self.at, []
