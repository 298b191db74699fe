"""An EROFS image written from front to back: files as they come, directories last, the first block last of all.

    block 0      superblock, the root's inode, and its entries if they fit
    …            content blocks; between them shelves, runs of blocks of inodes with the short ends of their content
    …            directories' inodes, then those blocks of theirs that are full

Nothing but the shelf in use is kept in memory. The bytes go to a `Port`; there is no other I/O here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

from scow.errors import Exhausted
from scow.layers.erofs import format as disk
from scow.layers.erofs.format import BLOCK, BLOCK_BITS, INODE, SLOT

Piece: TypeAlias = bytes | bytearray | memoryview

#: Blocks of a shelf. Small things fill the gaps that others leave, so hardly anything of it stays empty.
_SHELF: Final = 16
#: Longer ends of content get a block of their own: they would leave gaps that nothing fits in.
_END_MAX: Final = 3584
#: Content is written in pieces of about this size, and of no more buffers than writev(2) takes.
_GATHER: Final = 1 << 20
_BUFFERS: Final = 1000
#: Chunks that a sparse file's map may have (four bytes each); beyond, its chunks are larger.
_CHUNKS: Final = 1 << 16
#: As on ext4.
_SIZE_MAX: Final = 1 << 44
_ZEROS: Final = memoryview(bytes(BLOCK))
_EMPTY: Final[tuple[Piece, ...]] = ()


class Port(Protocol):
    """Where the image goes. Errors are OSError."""

    def write(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Write one piece behind the other. What is never written reads as zeros."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Read what was written."""
        ...


class Meta(NamedTuple):
    """What an inode says beside its content. `mode` with the kind, `mtime` in nanoseconds, `xattrs` encoded."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: bytes
    nlink: int = 1


class Image:
    """Adds inodes; gives each one's node number. Raises Exhausted beyond 16 TiB, and what the port raises."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._end = BLOCK
        self._gathered: list[Piece] = []
        self._gathered_at = BLOCK
        self._gathered_size = 0
        self._shelf = bytearray()
        self._shelf_at = 0
        #: Bytes used of each of the shelf's blocks; none while there is no shelf.
        self._used: list[int] = []
        self._inodes = 1
        self._chunked = False

    def file(self, meta: Meta, size: int, content: Iterable[Piece]) -> int:
        """A regular file (or a link, whose content is its target) of exactly `size` bytes."""
        end = size & (BLOCK - 1)
        inline = bool(end) and (end <= _END_MAX and INODE + len(meta.xattrs) + end <= BLOCK)
        if size < BLOCK and inline:
            return self._place(disk.FLAT_INLINE, meta, size, 0, content, end)
        start = self._end
        if not inline:
            self._append(size, content)
            return self._place(disk.FLAT_PLAIN, meta, size, start >> BLOCK_BITS if size else 0, _EMPTY, 0)
        rest = self._append_blocks(size - end, content)
        return self._place(disk.FLAT_INLINE, meta, size, start >> BLOCK_BITS, rest, end)

    def sparse(self, meta: Meta, size: int, pieces: Sequence[tuple[int, int]], content: Iterator[Piece]) -> int:
        """A file of which only `pieces` (offset, length; ascending) are stored, one behind the other, in `content`."""
        if size > _SIZE_MAX:
            raise Exhausted(f"layer has a sparse file of {size} bytes, more than the 16 TiB that a file may have")
        bits = disk.chunk_bits(size, _CHUNKS)
        shift = BLOCK_BITS + bits
        count = -(-size >> shift)
        table = [disk.HOLE] * count
        for offset, length in pieces:
            for chunk in range(offset >> shift, -(-(offset + length) >> shift)):
                if table[chunk] == disk.HOLE:
                    # The last chunk ends with the file.
                    table[chunk] = self._reserve(min(1 << shift, -(-(size - (chunk << shift)) // BLOCK) * BLOCK))
        self._scatter(table, shift, pieces, content)
        self._chunked = True
        words = b"".join(block.to_bytes(4, "little") for block in table)
        return self._place(disk.CHUNK_BASED, meta, size, bits, (words,), len(words))

    def node(self, meta: Meta, device: int = 0) -> int:
        """A device, FIFO or socket."""
        return self._place(disk.FLAT_PLAIN, meta, 0, device, _EMPTY, 0)

    def content(self, nid: int) -> bytes:
        """What a short file or link added before holds."""
        at = nid * SLOT
        inside = at - self._shelf_at
        if not self._used or not 0 <= inside < len(self._shelf):
            self._flush()
            head = self._port.read(at, BLOCK - at % BLOCK)
        else:
            head = bytes(self._shelf[inside : (inside // BLOCK + 1) * BLOCK])
        layout, xattrs, size, place = disk.inode_size(head)
        if layout == disk.FLAT_INLINE:
            return head[INODE + xattrs : INODE + xattrs + size]
        self._flush()
        return self._port.read(place << BLOCK_BITS, size)

    def set_links(self, nid: int, count: int) -> None:
        """Correct the number of names of an inode; after `close_files`."""
        self._port.write(nid * SLOT + disk.NLINK_AT, [count.to_bytes(4, "little")])

    def close_files(self) -> None:
        """No more files: all but directories is written."""
        self._flush()
        self._flush_shelf()

    def reserve(self, size: int) -> int:
        """Blocks for `size` bytes, to be written by the caller; gives the offset. After `close_files`."""
        return self._reserve(size) << BLOCK_BITS

    def write(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Write into what was reserved."""
        self._port.write(offset, pieces)

    def next_number(self) -> int:
        """A 32-bit inode number; nobody looks at it but fsck."""
        self._inodes += 1
        return self._inodes & 0xFFFFFFFF

    def seal(self, uuid: bytes, root: bytes, inodes: int) -> None:
        """Write the first block: the image is whole. `root` is the root's inode with what follows it."""
        head = disk.superblock(
            root=disk.ROOT_OFFSET // SLOT,
            inodes=inodes,
            blocks=self._end >> BLOCK_BITS,
            uuid=uuid,
            chunked=self._chunked,
        )
        block = bytes(disk.SUPER_OFFSET) + head + root
        # The last block may end in a hole, which the file's length must cover.
        if self._end > BLOCK and not self._port.read(self._end - 1, 1):
            self._port.write(self._end - 1, [b"\0"])
        self._port.write(0, [disk.sealed(block + bytes(BLOCK - len(block)))])

    def _place(self, layout: int, meta: Meta, size: int, place: int, tail: Iterable[Piece], length: int) -> int:
        """Put an inode on the shelf, with its attributes and `length` bytes behind them."""
        self._inodes += 1
        mode, uid, gid, mtime, xattrs, nlink = meta
        inode = disk.inode(layout, len(xattrs), mode, size, place, self._inodes & 0xFFFFFFFF, uid, gid, mtime, nlink)
        need = INODE + len(xattrs) + length
        if need > BLOCK:
            at = self._reserve(need) << BLOCK_BITS
            self._port.write(at, [inode, xattrs, *tail])
            return at // SLOT
        at = self._room(need)
        shelf = self._shelf
        shelf[at : at + INODE] = inode
        here = at + INODE
        if xattrs:
            shelf[here : here + len(xattrs)] = xattrs
            here += len(xattrs)
        for piece in tail:
            shelf[here : here + len(piece)] = piece
            here += len(piece)
        return (self._shelf_at + at) // SLOT

    def _room(self, need: int) -> int:
        """A place on the shelf: the first block that has room."""
        need = (need + SLOT - 1) & -SLOT
        limit = BLOCK - need
        for number, used in enumerate(self._used):
            if used <= limit:
                self._used[number] = used + need
                return number * BLOCK + used
        self._flush_shelf()
        self._shelf_at = self._reserve(_SHELF * BLOCK) << BLOCK_BITS
        self._shelf = bytearray(_SHELF * BLOCK)
        self._used = [0] * _SHELF
        self._used[0] = need
        return 0

    def _flush_shelf(self) -> None:
        if not self._used:
            return
        filled = next((BLOCK * (number + 1) for number in range(_SHELF - 1, -1, -1) if self._used[number]), 0)
        self._port.write(self._shelf_at, [memoryview(self._shelf)[:filled]])
        self._used = []
        if self._shelf_at + _SHELF * BLOCK == self._end:
            # Nothing came behind it: what isn't used is given back.
            self._end = self._gathered_at = self._shelf_at + filled

    def _reserve(self, size: int) -> int:
        """Room for `size` bytes at the end; gives its first block."""
        self._flush()
        block = self._end >> BLOCK_BITS
        self._grow(size)
        self._gathered_at = self._end
        return block

    def _grow(self, size: int) -> None:
        self._end += -(-size // BLOCK) * BLOCK
        if self._end >> BLOCK_BITS >= disk.BLOCKS_MAX:
            raise Exhausted("layer is larger than the 16 TiB that an EROFS image can have")

    def _append(self, size: int, content: Iterable[Piece]) -> None:
        """All of the content, in blocks of its own."""
        self._grow(size)
        for piece in content:
            self._gather(piece)
        if size % BLOCK:
            self._gather(_ZEROS[size % BLOCK :])

    def _append_blocks(self, size: int, content: Iterable[Piece]) -> list[Piece]:
        """Content up to `size`, in whole blocks; gives what follows."""
        self._grow(size)
        rest: list[Piece] = []
        for piece in content:
            if size >= len(piece):
                size -= len(piece)
                self._gather(piece)
                continue
            if size:
                self._gather(piece[:size])
                piece = piece[size:]
                size = 0
            rest.append(piece)
        return rest

    def _gather(self, piece: Piece) -> None:
        self._gathered.append(piece)
        self._gathered_size += len(piece)
        if self._gathered_size >= _GATHER or len(self._gathered) >= _BUFFERS:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            self._port.write(self._gathered_at, self._gathered)
            self._gathered_at += self._gathered_size
            self._gathered = []
            self._gathered_size = 0

    def _scatter(
        self, table: Sequence[int], shift: int, pieces: Sequence[tuple[int, int]], content: Iterator[Piece]
    ) -> None:
        """Write a sparse file's content into its chunks."""
        ahead = iter(pieces)
        offset = left = 0
        for stored in content:
            while len(stored):
                if not left:
                    offset, left = next(ahead)
                inside = offset & ((1 << shift) - 1)
                count = min(len(stored), left, (1 << shift) - inside)
                self._port.write((table[offset >> shift] << BLOCK_BITS) + inside, [stored[:count]])
                offset, left, stored = offset + count, left - count, stored[count:]
