"""PAX extended headers and sparse maps: bytes in, values out. Sans-IO; what is malformed is a ValueError.

Sources: pax(1) "pax Extended Header", the GNU tar manual "Storing Sparse Files", star(5) for SCHILY.xattr.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

#: Records by key; GNU's sparse format 0.0 repeats keys, so those pieces are gathered under their own key.
Records = dict[bytes, bytes]
Pieces = tuple[tuple[int, int], ...]

_PIECES: Final = b"GNU.sparse.map"
_PIECE: Final = frozenset({b"GNU.sparse.offset", b"GNU.sparse.numbytes"})
_XATTR: Final = b"SCHILY.xattr."
#: Keys whose value becomes part of a path or a link and must not hide something behind a NUL.
_TEXT: Final = frozenset({b"path", b"linkpath", b"GNU.sparse.name"})


def parse_records(data: bytes) -> Records:
    """Read `length key=value\\n` records. Raises ValueError."""
    records: Records = {}
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space]
        if space < 0 or not length.isdigit():
            # Some writers pad with NULs up to the block's end.
            if not data[at:].strip(b"\0"):
                break
            raise ValueError("a pax record has no length")
        end = at + int(length)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A or not equals or not key:
            raise ValueError("a pax record is malformed")
        if key in _TEXT and b"\0" in value:
            raise ValueError(f"pax record {key.decode()} contains a NUL")
        if key in _PIECE:
            pieces.append(value)
        else:
            records[key] = value
        at = end
    if pieces:
        records[_PIECES] = b",".join(pieces)
    return records


def merged(common: Records, own: Records) -> Records:
    """Global records overridden by an entry's own; an empty value takes a key away, but is one for an attribute."""
    return {key: value for key, value in {**common, **own}.items() if value or key.startswith(_XATTR)}


def decimal(value: bytes) -> int:
    """A non-negative decimal number. Raises ValueError."""
    if not value.isdigit() or len(value) > 20:
        raise ValueError(f"{value[:40]!r} is not a number")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """Seconds with any number of decimals (and a sign) as nanoseconds, rounded down. Raises ValueError."""
    negative = value.startswith(b"-")
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or len(whole) > 20 or (fraction and not fraction.isdigit()):
        raise ValueError(f"{value[:40]!r} is not a time")
    total = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    if not negative:
        return total
    return -total - (1 if fraction[9:].strip(b"0") else 0)


def xattrs(records: Records) -> dict[str, bytes]:
    """The extended attributes among the records."""
    found: dict[str, bytes] = {}
    for key, value in records.items():
        if key.startswith(_XATTR):
            name = key[len(_XATTR) :]
            if b"\0" in name or not name:
                raise ValueError("an extended attribute's name is malformed")
            found[name.decode("utf-8", "surrogateescape")] = value
    return found


def sparse_map(text: bytes) -> Pieces:
    """`offset,length,offset,length…` (formats 0.0 and 0.1). Raises ValueError."""
    numbers = [decimal(word) for word in text.split(b",")] if text else []
    if len(numbers) % 2:
        raise ValueError("a sparse map has an odd number of values")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


class MapReader:
    """Format 1.0: the map stands before the data, one decimal number a line, padded to a whole block."""

    def __init__(self) -> None:
        self._text = b""

    def feed(self, block: bytes) -> Pieces | None:
        """Take 512 bytes; gives the map once it is complete, None before. Raises ValueError."""
        self._text += block
        lines = self._text.split(b"\n")
        if len(lines) < 2 or len(lines) < 2 + 2 * decimal(lines[0]):
            if len(self._text) > 1 << 20:
                raise ValueError("a sparse map is longer than 1 MiB")
            return None
        count = decimal(lines[0])
        numbers = [decimal(line) for line in lines[1 : 1 + 2 * count]]
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def check_map(pieces: Iterable[tuple[int, int]], stored: int, real_size: int) -> Sequence[tuple[int, int]]:
    """Pieces must ascend, not overlap, lie within the file and add up to what is stored. Raises ValueError."""
    at = total = 0
    checked = []
    for offset, length in pieces:
        if length < 0 or offset < at or offset + length > real_size:
            raise ValueError("a sparse map is out of order or out of the file")
        at, total = offset + length, total + length
        if length:
            checked.append((offset, length))
    if total != stored:
        raise ValueError(f"a sparse map covers {total} bytes, but {stored} are stored")
    return checked
