"""EROFS on disk: values in, bytes out. Pure; only what Linux 5.15 reads: no compression, 4 KiB blocks.

Sources: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of the Linux kernel. All numbers are little endian.
Node numbers (nid) count slots of 32 bytes from the image's first byte: the metadata area starts at block 0 here.
"""

from __future__ import annotations

import stat
import struct
from functools import cache
from typing import Final

BLOCK_BITS: Final = 12
BLOCK: Final = 1 << BLOCK_BITS
SLOT: Final = 32
#: Extended inodes only: compact ones have no modification time of their own, and 16 bits for owners.
INODE: Final = 64

SUPER_OFFSET: Final = 1024
SUPER_SIZE: Final = 128
#: The root's node number has 16 bits, so the root's inode lies right behind the superblock.
ROOT_OFFSET: Final = SUPER_OFFSET + SUPER_SIZE

#: Data layouts (i_format, bits 1 to 3); bit 0 is set for extended inodes.
FLAT_PLAIN: Final = 0 << 1 | 1
FLAT_INLINE: Final = 2 << 1 | 1
CHUNK_BASED: Final = 4 << 1 | 1

#: A chunk or block that isn't stored.
HOLE: Final = 0xFFFFFFFF
#: Block addresses have 32 bits.
BLOCKS_MAX: Final = HOLE
#: Kinds in directory entries; the numbers of DT_* mean other things.
REG, DIR, CHR, BLK, FIFO, SOCK, LNK = range(1, 8)
KINDS: Final = {
    stat.S_IFREG: REG,
    stat.S_IFDIR: DIR,
    stat.S_IFCHR: CHR,
    stat.S_IFBLK: BLK,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCK,
    stat.S_IFLNK: LNK,
}

_MAGIC: Final = 0xE0F5E1E2
_COMPAT_CHECKSUM: Final = 0x1
_COMPAT_MTIME: Final = 0x2
_INCOMPAT_CHUNKED: Final = 0x4

_SUPER: Final = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23s")
_INODE: Final = struct.Struct("<HHHHQIIIIqII16x")
#: Where i_nlink is within an inode.
NLINK_AT: Final = 44
_POLYNOMIAL: Final = 0x82F63B78


def superblock(*, root: int, inodes: int, blocks: int, uuid: bytes, chunked: bool) -> bytes:
    """128 bytes, still without the checksum. `uuid` has 16 bytes; the build time is always 0."""
    return _SUPER.pack(
        _MAGIC, 0, _COMPAT_CHECKSUM | _COMPAT_MTIME, BLOCK_BITS, 0, root, inodes, 0, 0, blocks, 0, 0, uuid, b"",
        _INCOMPAT_CHUNKED if chunked else 0, 0, 0, 0, 0, 0, 0, 0, 0, b"",
    )  # fmt: skip


def sealed(block: bytes) -> bytes:
    """The image's first block with the superblock's checksum (crc32c of the rest of the block) filled in."""
    checksum = crc32c(block[SUPER_OFFSET:])
    return block[: SUPER_OFFSET + 4] + checksum.to_bytes(4, "little") + block[SUPER_OFFSET + 8 :]


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC from all ones, not inverted at the end, as in the kernel. For a block or so: it is slow."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc


@cache
def _crc_table() -> tuple[int, ...]:
    """What each value of the lowest byte does to the rest."""
    table = []
    for crc in range(256):
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


def inode(
    layout: int, xattrs: int, mode: int, size: int, place: int, number: int, uid: int, gid: int, mtime: int, nlink: int
) -> bytes:
    """An extended inode. `xattrs` is the length of what follows it, in bytes; `mtime` in nanoseconds.

    `place` is the first block, the device number, or the chunk format, as the layout and the mode have it.
    """
    seconds, nanoseconds = divmod(mtime, 1_000_000_000)
    count = (xattrs - 12) // 4 + 1 if xattrs else 0
    return _INODE.pack(layout, count, mode, 0, size, place, number, uid, gid, seconds, nanoseconds, nlink)


def inode_size(data: bytes) -> tuple[int, int, int, int]:
    """Of an extended inode: layout, length of its attributes, size, place."""
    layout, count, _, _, size, place, *_ = _INODE.unpack_from(data)
    return layout, 12 + 4 * (count - 1) if count else 0, size, place


def device_number(major: int, minor: int) -> int:
    """As the kernel's new_encode_dev()."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def chunk_bits(size: int, chunks_max: int) -> int:
    """The smallest chunk, in bits above the block size, of which `chunks_max` are enough."""
    bits = 0
    while -(-size >> (BLOCK_BITS + bits)) > chunks_max:
        bits += 1
    return bits
