"""PAX extended headers and sparse maps: bytes in, values out. Sans-IO; what is malformed is a ValueError.

Sources: pax(1) "pax Extended Header", the GNU tar manual "Storing Sparse Files", star(5) for SCHILY.xattr. What Go's
archive/tar and GNU tar read differently is refused (see headers.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

#: Records by key; GNU's sparse format 0.0 repeats keys, so those pieces are gathered under their own key.
Records = dict[bytes, bytes]
Pieces = tuple[tuple[int, int], ...]

_MAP: Final = b"GNU.sparse.map"
_PIECE: Final = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_SPARSE: Final = b"GNU.sparse."
_XATTR: Final = b"SCHILY.xattr."
#: Paths hide nothing behind a NUL; an empty value means the header's to Go, and nothing to GNU.
_NAME: Final = re.compile(rb"[^\0]+").fullmatch
_USER: Final = re.compile(rb"[^\0]*").fullmatch
#: As many digits as surely fit 64 bits.
_NUMBER: Final = re.compile(rb"[0-9]{1,18}").fullmatch
_TIME: Final = re.compile(rb"-?[0-9]{1,18}(?:\.[0-9]*)?").fullmatch
#: What a value must be like. Go reads no archive where one isn't, be it of no use to anybody.
_VALUES: Final = {
    b"path": _NAME, b"linkpath": _NAME, b"GNU.sparse.name": _NAME, b"uname": _USER, b"gname": _USER,
    b"size": _NUMBER, b"uid": _NUMBER, b"gid": _NUMBER, b"mtime": _TIME, b"atime": _TIME, b"ctime": _TIME,
}  # fmt: skip


def parse_records(data: bytes) -> Records:
    """Read `length key=value\\n` records; of two with one key the last counts. Raises ValueError."""
    records: Records = {}
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space]
        if space < 0 or not length.isdigit():
            raise ValueError("a pax record has no length")
        end = at + int(length)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A or not equals or not key or b"\0" in key:
            raise ValueError("a pax record is malformed")
        if (valid := _VALUES.get(key)) is not None and valid(value) is None:
            raise ValueError(f"pax record {key.decode()} can't be {value[:40]!r}")
        if key in _PIECE:
            if key != _PIECE[len(pieces) % 2] or _NUMBER(value) is None:
                raise ValueError("a sparse map is out of order")
            pieces.append(value)
        else:
            records[key] = value
        at = end
    if pieces:
        if _MAP in records:
            raise ValueError("a file has two sparse maps")
        records[_MAP] = b",".join(pieces)
    return records


def check_common(records: Records) -> None:
    """Global records hold for all entries to GNU, and for none to Go and thus to docker. Raises ValueError."""
    for key in records:
        if key in _VALUES or key.startswith((_SPARSE, _XATTR)):
            raise ValueError(f"a global pax record {key[:40].decode(errors='replace')} is not for every reader")


def with_long(records: Records, long: Records) -> Records:
    """Records and GNU's long names, of which Go prefers these and GNU those. Raises ValueError where there are both."""
    if long.keys() & records.keys() or (b"path" in long and b"GNU.sparse.name" in records):
        raise ValueError("an entry has both a pax record and a GNU header for its name")
    return {**records, **long}


def decimal(value: bytes) -> int:
    """A non-negative decimal number. Raises ValueError."""
    if _NUMBER(value) is None:
        raise ValueError(f"{value[:40]!r} is not a number")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """Seconds with any number of decimals (and a sign) as nanoseconds, cut off after nine. Raises ValueError."""
    negative = value.startswith(b"-")
    whole, _, fraction = value.removeprefix(b"-").partition(b".")
    if not whole.isdigit() or (fraction and not fraction.isdigit()):
        raise ValueError(f"{value[:40]!r} is not a time")
    if negative and fraction[9:].strip(b"0"):
        raise ValueError("a time before 1970 with more than nine decimals is rounded up by some, and down by others")
    total = int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -total if negative else total


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


def sparse_form(records: Records) -> tuple[bool, int] | None:
    """Whether the map stands before the data (format 1.0), and the file's length; None where nothing is sparse.

    Raises ValueError for forms of which Go and GNU make different files.
    """
    if not any(key.startswith(_SPARSE) for key in records):
        return None
    version = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    leading = version == (b"1", b"0")
    if not leading and (version not in ((None, None), (b"0", b"0"), (b"0", b"1")) or not records.get(_MAP)):
        raise ValueError("a sparse file is of no known form")
    if leading == (_MAP in records):
        raise ValueError("a file has two sparse maps")
    sizes = {records[key] for key in (b"GNU.sparse.size", b"GNU.sparse.realsize") if key in records}
    if len(sizes) != 1:
        raise ValueError("a sparse file has no length, or two")
    return leading, decimal(sizes.pop())


def sparse_map(records: Records) -> Pieces:
    """`offset,length,offset,length…` (formats 0.0 and 0.1). Raises ValueError."""
    numbers = [decimal(word) for word in records[_MAP].split(b",")]
    if len(numbers) != 2 * decimal(records.get(b"GNU.sparse.numblocks", b"")):
        raise ValueError("a sparse map is shorter or longer than it says")
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
