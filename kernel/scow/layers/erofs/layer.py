"""Entries of a layer's archive become inodes of an image and names in a tree; in the end the tree is written, too.

A handler for each kind of entry, as in `scow.layers.extract`, whose rules these are: of two entries with one name the
last wins, whatever their kinds; whiteouts are remembered, and expressed when all is there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from scow.errors import Corrupt
from scow.layers import names
from scow.layers.attributes import Attributes, wanted_xattrs
from scow.layers.erofs import format as disk
from scow.layers.erofs.below import BelowFile, open_below
from scow.layers.erofs.finish import write_tree
from scow.layers.erofs.image import Image, Meta
from scow.layers.erofs.tree import KIND_BITS, Directory, LayerTree, Leaf, check_name
from scow.layers.erofs.xattrs import encoded
from scow.layers.extract import check_owner, check_target, translated
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.tar import Entry
from scow.layers.tree import NoDirectory

Data = Callable[[], Iterator[memoryview]]

_NODES: Final = {b"3": (stat.S_IFCHR, disk.CHR), b"4": (stat.S_IFBLK, disk.BLK), b"6": (stat.S_IFIFO, disk.FIFO)}


class LayerWriter:
    """Feed it entries in their order, then `finish`."""

    def __init__(self, image: Image, lower: LowerTree | None, limits: Limits) -> None:
        self._image = image
        self._limits = limits
        self._tree = LayerTree(lower, lambda leaf: image.content(leaf >> KIND_BITS), limits)
        #: Names of each leaf that has, or had, several.
        self._links: dict[Leaf, int] = {}
        self._entries = 0
        self._written = 0

    def add(self, entry: Entry, data: Data) -> None:
        """Take one entry; `data` gives its stored bytes. Raises Corrupt, Exhausted, Denied."""
        self._entries += 1
        self._limits.check_entries(self._entries)
        path = names.beneath(entry.name)
        handler = _HANDLERS.get(entry.kind)
        if handler is None:
            raise Corrupt(f"layer contains {names.show(entry.name)} of the unknown kind {entry.kind!a}")
        directory, _, name = path.rpartition(b"/")
        try:
            kept = b".wh." in path and names.is_linked(directory, name, entry.kind)
            if b".wh." in path and not kept and self._is_whiteout(directory, name):
                return
            if path:
                check_name(name)
                handler(self, entry, self._tree.directory(directory), name, data)
            elif entry.kind == b"5":
                self._tree.root.attributes = _attributes(entry)
            else:
                raise Corrupt("layer wants to replace the root directory by something else")
        except OSError as error:
            raise translated(error, entry.name) from error

    def finish(self, uuid: bytes) -> None:
        """Write what the entries say in sum: the image is complete. Raises like `add`."""
        kept = self._tree.root.children.pop(names.AUFS_LINKS, None)
        if kept is not None:
            self._drop(kept)
        try:
            write_tree(self._image, self._tree, self._links, uuid)
        except OSError as error:
            raise translated(error, b"its directories") from error

    def _is_whiteout(self, directory: bytes, name: bytes) -> bool:
        """Take note of a whiteout. Raises Corrupt for one that makes no sense."""
        for part in directory.split(b"/"):
            if part.startswith(names.AUFS):
                return True
            if part.startswith(names.WHITEOUT):
                raise Corrupt(f"layer has something beneath the whiteout {names.show(part)}")
        if not name.startswith(names.WHITEOUT):
            return False
        if name == names.OPAQUE or not name.startswith(names.AUFS):
            hidden = b"" if name == names.OPAQUE else names.hidden_name(name)
            try:
                self._hide(self._tree.directory(directory), hidden)
            except NoDirectory:
                pass  # as in scow.layers.extract
        return True

    def _hide(self, directory: Directory, name: bytes) -> None:
        """Hide a name, or with an empty one all that lies below in the directory."""
        if not name:
            directory.opaque = True
            return
        directory.hidden = directory.hidden or set()
        directory.hidden.add(name)

    def _directory(self, entry: Entry, parent: Directory, name: bytes, data: Data) -> None:
        there = parent.children.get(name)
        if isinstance(there, Directory):
            there.attributes = _attributes(entry)
            return
        made = self._tree.make(parent, name, _attributes(entry))
        if there is not None:
            self._drop(there)
            # What was a file for a moment hid the directory below.
            made.opaque = True

    def _regular(self, entry: Entry, parent: Directory, name: bytes, data: Data) -> None:
        self._count(entry.size if entry.sparse is None else sum(length for _, length in entry.sparse))
        meta = _meta(entry, stat.S_IFREG)
        if entry.sparse is None:
            nid = self._image.file(meta, entry.size, data() if entry.size else ())
        else:
            nid = self._image.sparse(meta, entry.size, entry.sparse, data())
        self._put(parent, name, nid << KIND_BITS | disk.REG)

    def _symlink(self, entry: Entry, parent: Directory, name: bytes, data: Data) -> None:
        check_target(entry)
        nid = self._image.file(_meta(entry, stat.S_IFLNK, 0o777), len(entry.link), (entry.link,))
        self._put(parent, name, nid << KIND_BITS | disk.LNK)

    def _node(self, entry: Entry, parent: Directory, name: bytes, data: Data) -> None:
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise Corrupt(f"layer's device {names.show(entry.name)} has the impossible number {major}:{minor}")
        kind, number = _NODES[entry.kind]
        nid = self._image.node(_meta(entry, kind), disk.device_number(major, minor))
        self._put(parent, name, nid << KIND_BITS | number)

    def _hardlink(self, entry: Entry, parent: Directory, name: bytes, data: Data) -> None:
        directory, target = names.split(names.beneath(entry.link))
        source = self._tree.directory(directory)
        there = parent.children.get(name)
        inside = isinstance(there, Directory) and source.is_within(there)
        if not target or inside or (source is parent and target == name):
            raise Corrupt(f"layer's hard link {names.show(entry.name)} leads to {names.show(entry.link)}")
        leaf = source.children.get(target)
        if leaf is None:
            leaf = self._bring_up(entry, source, target)
        if isinstance(leaf, Directory):
            raise Corrupt(f"layer's hard link {names.show(entry.name)} leads to a directory")
        if leaf == there:
            return
        self._links[leaf] = self._links.get(leaf, 1) + 1
        self._put(parent, name, leaf)

    def _bring_up(self, entry: Entry, source: Directory, name: bytes) -> Leaf:
        """A hard link's target that lies below is copied up."""
        found = self._tree.stat_below(source, name)
        if found is None or self._tree.lower is None:
            raise Corrupt(
                f"layer's hard link {names.show(entry.name)} leads to {names.show(entry.link)}, which isn't there"
            )
        path, status = found
        if stat.S_ISDIR(status.st_mode):
            raise Corrupt(f"layer's hard link {names.show(entry.name)} leads to a directory")
        self._count(status.st_size)
        with open_below(self._tree.lower, path, status) as file:
            leaf = self._copy(file)
        self._put(source, name, leaf)
        return leaf

    def _copy(self, file: BelowFile) -> Leaf:
        mode, uid, gid, mtime, xattrs = file.attributes
        meta = Meta(file.kind | mode, uid, gid, mtime, encoded(file.kind, xattrs))
        if file.pieces is not None:
            nid = self._image.sparse(meta, file.size, file.pieces, file.data())
        elif file.size:
            nid = self._image.file(meta, file.size, file.data())
        elif stat.S_ISREG(file.kind):
            nid = self._image.file(meta, 0, ())
        else:
            nid = self._image.node(meta, disk.device_number(os.major(file.device), os.minor(file.device)))
        return nid << KIND_BITS | disk.KINDS[file.kind]

    def _count(self, size: int) -> None:
        self._written += size
        self._limits.check_bytes(self._written)

    def _put(self, parent: Directory, name: bytes, leaf: Leaf) -> None:
        """Name a leaf; an earlier entry of the same name makes way."""
        there = parent.children.get(name)
        if there is not None:
            self._drop(there)
        parent.children[name] = leaf

    def _drop(self, there: Directory | Leaf) -> None:
        """A name is gone, with all that was beneath it."""
        ahead = [there]
        while ahead:
            gone = ahead.pop()
            if isinstance(gone, Directory):
                ahead.extend(gone.children.values())
            elif gone in self._links:
                self._links[gone] -= 1


Handler = Callable[[LayerWriter, Entry, Directory, bytes, Data], None]

_HANDLERS: Final[dict[bytes, Handler]] = {
    b"0": LayerWriter._regular,
    b"1": LayerWriter._hardlink,
    b"2": LayerWriter._symlink,
    b"3": LayerWriter._node,
    b"4": LayerWriter._node,
    b"5": LayerWriter._directory,
    b"6": LayerWriter._node,
}


def _attributes(entry: Entry) -> Attributes:
    check_owner(entry)
    return Attributes(entry.mode & 0o7777, entry.uid, entry.gid, entry.mtime, wanted_xattrs(entry.xattrs))


def _meta(entry: Entry, kind: int, mode: int | None = None) -> Meta:
    check_owner(entry)
    xattrs = encoded(kind, wanted_xattrs(entry.xattrs)) if entry.xattrs else b""
    return Meta(kind | (entry.mode & 0o7777 if mode is None else mode), entry.uid, entry.gid, entry.mtime, xattrs)
