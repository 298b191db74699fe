"""One tar header block: 512 bytes in, fields out. Sans-IO and strict: what isn't surely a header is a ValueError.

Sources: POSIX.1-1988 ustar and POSIX.1-2001 pax (pax(1), "ustar Interchange Format"), the GNU tar manual ("Basic Tar
Format"), star(5). Speed matters here: a layer has tens of thousands of these.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple
from zlib import adler32

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8s1s100s8s32s32s8s8s155s12s")
_USTAR: Final = b"ustar\0"
_STAR_END: Final = b"tar\0"
#: Where old GNU sparse headers keep four (offset, length) pairs, the flag for more, and the real size.
_SPARSE_AT, _SPARSE_MORE_AT, _SPARSE_REAL = 386, 482, slice(483, 495)


class Header(NamedTuple):
    """A header's fields as they stand; `mtime` in seconds, `device` is (major, minor)."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    link: bytes
    device: tuple[int, int]


def parse_header(block: bytes) -> Header:
    """Read a block that isn't all zeros. Raises ValueError with the reason."""
    (name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, _, major, minor, prefix, tail) = _FIELDS.unpack(
        block
    )
    _verify(block, checksum)
    name = name.partition(b"\0")[0]
    if magic[:6] == _USTAR and prefix[0]:
        if tail[8:] == _STAR_END:
            prefix = prefix[:131]
        name = prefix.partition(b"\0")[0] + b"/" + name
    return Header(
        name,
        small_number(mode),
        small_number(uid),
        small_number(gid),
        _size(size),
        small_number(mtime),
        kind,
        link.partition(b"\0")[0],
        (number(major), number(minor)) if kind in b"34" else (0, 0),
    )


def metadata_size(block: bytes) -> int:
    """How long the content of an extended header is; nothing else in such a block counts. Raises ValueError."""
    _verify(block, block[148:156])
    return _size(block[124:136])


def _size(field: bytes) -> int:
    size = number(field)
    if size < 0:
        raise ValueError(f"size {size} is negative")
    return size


def number(field: bytes) -> int:
    """Octal digits between spaces and NULs, or base-256 where the first bit is set. Raises ValueError."""
    if (digits := field[:-1]).isdigit():
        # Nearly all of them: digits up to the last byte.
        return int(digits, 8)
    if field[0] & 0x80:
        # Two's complement in all bits but the first, which only marks the encoding (GNU tar manual, "Extensions").
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError(f"{field!r} is not an octal number")
    return int(digits, 8)


#: Modes, owners and times repeat from entry to entry.
small_number = lru_cache(maxsize=1024)(number)


def _verify(block: bytes, field: bytes) -> None:
    """The checksum counts its own field as spaces.

    adler32's lower half is 1 plus the sum of the bytes modulo 65521, which 256 bytes never reach: summing at the
    speed of C.
    """
    expected, own = _checksum(field)
    if (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) == expected + own - 254:
        return
    # Old Sun tars summed signed bytes.
    rest = block[:148] + block[156:]
    if sum(byte - 256 if byte > 127 else byte for byte in rest) + 256 != expected:
        raise ValueError("checksum is wrong")


@lru_cache(maxsize=4096)
def _checksum(field: bytes) -> tuple[int, int]:
    """The number in the field, and the sum of the field's bytes."""
    return number(field), sum(field)


class OldSparse(NamedTuple):
    """The map of a GNU sparse header so far; `more` says that another block of it follows."""

    pieces: list[tuple[int, int]]
    real_size: int
    more: bool


def parse_old_sparse(block: bytes) -> OldSparse:
    """The map in a header of kind `S`. Raises ValueError."""
    return OldSparse(_pairs(block, _SPARSE_AT, 4), number(block[_SPARSE_REAL]), block[_SPARSE_MORE_AT] != 0)


def parse_sparse_extension(block: bytes) -> tuple[list[tuple[int, int]], bool]:
    """A block of more pieces behind a header of kind `S`, and whether yet another follows. Raises ValueError."""
    return _pairs(block, 0, 21), block[504] != 0


def _pairs(block: bytes, at: int, count: int) -> list[tuple[int, int]]:
    pieces = []
    for start in range(at, at + 24 * count, 24):
        # A piece that was never written is all NULs and ends the list.
        if not block[start]:
            break
        pieces.append((number(block[start : start + 12]), number(block[start + 12 : start + 24])))
    return pieces
