"""One tar header block: 512 bytes in, fields out. Sans-IO and strict: what isn't surely a header is a ValueError.

Sources: POSIX.1-1988 ustar and POSIX.1-2001 pax (pax(1), "ustar Interchange Format"), the GNU tar manual ("Basic Tar
Format"), star(5). Go's archive/tar (strconv.go, reader.go) reads images for docker and for all that scan them, GNU tar
(list.c, from_header) for people: what those two read differently is refused, so that nobody sees another layer than
what runs. Speed matters here: a layer has tens of thousands of these.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import Final, NamedTuple
from zlib import adler32

BLOCK: Final = 512
ZERO_BLOCK: Final = bytes(BLOCK)

_FIELDS: Final = struct.Struct("100s8s8s8s12s12s8s1s100s8s64s16s167s")
_USTAR: Final = b"ustar\0"
_GNU: Final = b"ustar  \0"
_STAR_END: Final = b"tar\0"
#: The prefix of a name and what follows up to the block's end, where they hold nothing.
_NO_REST: Final = bytes(167)
#: What stands in place of device numbers nearly always.
_NO_DEVICE: Final = (bytes(16), b"0000000\x000000000\0")
#: Go takes spaces and NULs from both ends, GNU one NUL and then spaces from the front, and what follows the digits.
_OCTAL: Final = re.compile(rb"\0?+ *([0-7]+)(?:\0.*|[ \0]*)", re.DOTALL)
_ZERO: Final = re.compile(rb"\0?+ *\0[ \0]*")
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
    name, mode, uid, gid, size, mtime, checksum, kind, link, magic, _, numbers, rest = _FIELDS.unpack(block)
    _verify(block, checksum)
    name = name.partition(b"\0")[0]
    device = (0, 0)
    if magic[:6] == _USTAR:
        device = _device(kind, numbers)
        if rest != _NO_REST and (prefix := _prefix(rest)):
            name = prefix + b"/" + name
    elif magic == _GNU:
        device = _device(kind, numbers)
        if rest[0]:
            _check_gnu_times(rest)
    if kind == b"S" and magic != _GNU:
        raise ValueError("a sparse file of GNU's old form in a header of another")
    return Header(
        name,
        small_number(mode),
        small_number(uid),
        small_number(gid),
        _size(size),
        small_number(mtime),
        kind,
        link.partition(b"\0")[0],
        device,
    )


def metadata_size(block: bytes) -> int:
    """How long the content of an extended header is. Raises ValueError.

    Nothing else in such a block counts; but Go reads no archive where these fields are no numbers.
    """
    _verify(block, block[148:156])
    _check_others(block[100:124], block[257:])
    small_number(block[136:148])
    return _size(block[124:136])


@lru_cache(maxsize=64)
def _check_others(owner: bytes, rest: bytes) -> None:
    """From mode to group, and from the magic on: they repeat."""
    for at in (0, 8, 16):
        number(owner[at : at + 8])
    if rest[:6] == _USTAR:
        _prefix(rest[88:])
    if rest[:6] == _USTAR or rest[:8] == _GNU:
        _check_device(rest[72:88])


def _prefix(rest: bytes) -> bytes:
    """What stands before a name longer than 100 bytes, in the forms of POSIX and of star."""
    prefix = rest[:155].partition(b"\0")[0]
    if rest[163:] != _STAR_END:
        return prefix
    if len(prefix) > 130:
        raise ValueError("star's prefix of a name has no end")
    number(rest[131:143])
    number(rest[143:155])
    return prefix


def _check_gnu_times(rest: bytes) -> None:
    """GNU's form has two times where others have a prefix; what is no time there is one for Go, and not for GNU."""
    try:
        for field in (rest[:12], rest[12:24]):
            if field[0]:
                number(field)
    except ValueError:
        raise ValueError("GNU's form of a header has no prefix, but this one has") from None


def _device(kind: bytes, numbers: bytes) -> tuple[int, int]:
    if kind in b"34":
        return number(numbers[:8]), number(numbers[8:])
    if numbers not in _NO_DEVICE:
        _check_device(numbers)
    return 0, 0


def _check_device(numbers: bytes) -> None:
    """Go reads the numbers of what is no device, too; blanks are none."""
    for field in (numbers[:8], numbers[8:]):
        if field.strip(b" \0"):
            number(field)


def _size(field: bytes) -> int:
    size = number(field)
    if size < 0:
        raise ValueError(f"size {size} is negative")
    return size


def number(field: bytes) -> int:
    """Octal digits up to the field's end, a space or a NUL; or base-256 where the first bit is set. Raises ValueError.

    A field without a terminator uses all its bytes, as old tars wrote them.
    """
    if (digits := field.rstrip(b" \0")).isdigit() and b"8" not in digits and b"9" not in digits:
        # Nearly all of them.
        return int(digits, 8)
    if field[0] in (0x80, 0xFF):
        # Two's complement in all bits but the first, which only marks the encoding (GNU tar manual, "Extensions").
        value = int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
        if -(1 << 63) <= value < 1 << 63:
            return value
        raise ValueError(f"{field!r} is no number of 64 bits")
    if octal := _OCTAL.fullmatch(field):
        return int(octal[1], 8)
    if _ZERO.fullmatch(field):
        return 0
    raise ValueError(f"{field!r} is not an octal number")


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
    if field[0] & 0x80:
        raise ValueError("checksum is not an octal number")
    return number(field), sum(field)


class OldSparse(NamedTuple):
    """The map of a GNU sparse header so far; `more` says that another block of it follows."""

    pieces: list[tuple[int, int]]
    real_size: int
    more: bool


def parse_old_sparse(block: bytes) -> OldSparse:
    """The map in a header of kind `S`. Raises ValueError."""
    more = block[_SPARSE_MORE_AT] != 0
    return OldSparse(_pairs(block, _SPARSE_AT, 4, more), _size(block[_SPARSE_REAL]), more)


def parse_sparse_extension(block: bytes) -> tuple[list[tuple[int, int]], bool]:
    """A block of more pieces behind a header of kind `S`, and whether yet another follows. Raises ValueError."""
    more = block[504] != 0
    return _pairs(block, 0, 21, more), more


def _pairs(block: bytes, at: int, count: int, more: bool) -> list[tuple[int, int]]:
    """Pieces up to one that was never written: all NULs. Go looks at its offset, GNU at its length."""
    pieces = []
    for start in range(at, at + 24 * count, 24):
        if not block[start] or not block[start + 12]:
            if block[start] or block[start + 12] or more:
                raise ValueError("a sparse map ends in its middle")
            break
        pieces.append((number(block[start : start + 12]), number(block[start + 12 : start + 24])))
    return pieces
