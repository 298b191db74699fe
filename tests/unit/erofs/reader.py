"""A reader of EROFS images that shares no code with the writer: what the kernel would see, checked on the way."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 4096
_PREFIX = {1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}


@dataclass
class Inode:
    nid: int
    mode: int
    size: int
    uid: int
    gid: int
    mtime: int
    nlink: int
    place: int
    layout: int
    xattrs: dict[str, bytes]
    #: Where the bytes behind the attributes are.
    tail: int
    children: dict[bytes, Inode] = field(default_factory=dict)


class Reader:
    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        (magic, self.checksum, self.compat, bits, slots, root, self.inodes, time, _, self.blocks, meta, _) = (
            struct.unpack_from("<IIIBBHQQIIII", self.data, 1024)
        )
        assert (magic, bits, slots, time, meta) == (0xE0F5E1E2, 12, 0, 0, 0)
        assert len(self.data) == self.blocks * BLOCK
        self.uuid = self.data[1024 + 48 : 1024 + 64]
        self.seen: dict[int, Inode] = {}
        self.root = self.inode(root)
        # Not by recursion: a tree may be deeper than the interpreter's stack.
        self._ahead = [(self.root, self.root)]
        while self._ahead:
            self._visit(*self._ahead.pop())

    def inode(self, nid: int) -> Inode:
        at = nid * 32
        layout, count, mode, zero, size, place, _, uid, gid, mtime, nsec, nlink = struct.unpack_from(
            "<HHHHQIIIIqII", self.data, at
        )
        assert layout & 1, "not an extended inode"
        assert zero == 0
        assert at // BLOCK == (at + 63) // BLOCK, "an inode over two blocks"
        end = at + 64 + (12 + 4 * (count - 1) if count else 0)
        return Inode(
            nid, mode, size, uid, gid, mtime * 10**9 + nsec, nlink, place, layout >> 1, self._xattrs(at + 64, end), end
        )

    def content(self, inode: Inode) -> bytes:
        if inode.layout == 4:
            return self._chunks(inode)
        whole = inode.size // BLOCK * BLOCK if inode.layout == 2 else inode.size
        data = self.data[inode.place * BLOCK : inode.place * BLOCK + whole]
        rest = inode.size - whole
        if rest:
            assert inode.tail // BLOCK == (inode.tail + rest - 1) // BLOCK, "inline data over two blocks"
            data += self.data[inode.tail : inode.tail + rest]
        assert len(data) == inode.size
        return data

    def _chunks(self, inode: Inode) -> bytes:
        size = BLOCK << (inode.place & 31)
        parts = []
        for number in range(-(-inode.size // size)):
            (block,) = struct.unpack_from("<I", self.data, inode.tail + 4 * number)
            length = min(size, inode.size - number * size)
            parts.append(bytes(length) if block == 0xFFFFFFFF else self.data[block * BLOCK : block * BLOCK + length])
        return b"".join(parts)

    def _xattrs(self, at: int, end: int) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        at += 12
        while at < end:
            length, index, size = struct.unpack_from("<BBH", self.data, at)
            name = self.data[at + 4 : at + 4 + length].decode()
            found[_PREFIX[index] + name] = self.data[at + 4 + length : at + 4 + length + size]
            at += (4 + length + size + 3) // 4 * 4
        return found

    def _visit(self, inode: Inode, parent: Inode) -> None:
        self.seen[inode.nid] = inode
        if inode.mode & 0o170000 != 0o040000:
            return
        names = self._entries(inode)
        assert [name for name, _, _ in names] == sorted({name for name, _, _ in names}), "entries out of order"
        for name, nid, kind in names:
            if name in (b".", b".."):
                assert (nid, kind) == ((inode if name == b"." else parent).nid, 2)
                continue
            child = self.seen.get(nid)
            if child is None:
                child = self.seen[nid] = self.inode(nid)
                self._ahead.append((child, inode))
            assert kind == {0o10: 1, 0o4: 2, 0o2: 3, 0o6: 4, 0o1: 5, 0o12: 7}[child.mode >> 12]
            inode.children[name] = child

    def _entries(self, inode: Inode) -> list[tuple[bytes, int, int]]:
        data = self.content(inode)
        found = []
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            count = struct.unpack_from("<QH", block)[1] // 12
            heads = [struct.unpack_from("<QHB", block, 12 * number) for number in range(count)]
            ends = [offset for _, offset, _ in heads[1:]] + [len(block)]
            for (nid, offset, kind), end in zip(heads, ends, strict=True):
                found.append((block[offset:end].rstrip(b"\0"), nid, kind))
        return found

    def paths(self) -> dict[bytes, Inode]:
        """Every name but the root's."""
        found: dict[bytes, Inode] = {}
        ahead = [(b"", self.root)]
        while ahead:
            path, here = ahead.pop()
            for name, child in here.children.items():
                found[path + name] = child
                ahead.append((path + name + b"/", child))
        return found
