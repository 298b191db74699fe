"""How Go's archive/tar reads an archive, written anew from its rules (reader.go, strconv.go), as an oracle.

docker, containerd, BuildKit, skopeo and the scanners of images all read with it. Nothing here is taken from scow.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_V7, _USTAR, _STAR, _GNU = range(4)
_INT64 = 1 << 63


class GoError(Exception):
    """Go reads no further."""


class Member(NamedTuple):
    """What archive/tar's Header says, and the whole content; `mtime` in nanoseconds."""

    name: bytes
    kind: bytes
    link: bytes
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    device: tuple[int, int]
    data: bytes


class _Header:
    def __init__(self, block: bytes) -> None:
        self.form = _form(block)
        self.kind = block[156:157]
        self.name, self.link = _string(block[:100]), _string(block[157:257])
        self.size, self.mode = _numeric(block[124:136]), _numeric(block[100:108])
        self.uid, self.gid = _numeric(block[108:116]), _numeric(block[116:124])
        self.mtime = _numeric(block[136:148]) * 10**9
        self.device = (0, 0)
        prefix = b""
        if self.form != _V7:
            self.device = (_numeric(block[329:337]), _numeric(block[337:345]))
        if self.form == _USTAR:
            prefix = _string(block[345:500])
        elif self.form == _STAR:
            prefix = _string(block[345:476])
            _numeric(block[476:488]), _numeric(block[488:500])
        elif self.form == _GNU:
            try:
                [_numeric(block[at : at + 12]) for at in (345, 357) if block[at]]
            except GoError:
                # Before Go 1.8 its writer put a prefix into GNU's form.
                text = _string(block[345:500])
                prefix = text if text.isascii() else b""
        if prefix:
            self.name = prefix + b"/" + self.name


def read(archive: bytes) -> list[Member]:
    """All members but global headers, which Go hands out and docker passes over. Raises GoError."""
    members, at = [], 0
    records: dict[bytes, bytes] = {}
    long_name = long_link = b""
    while True:
        block, at = _block(archive, at)
        if not block:
            return members
        header = _Header(block)
        kind = header.kind
        if kind in b"xgLK":
            if header.size < 0 or header.size > 1 << 20:
                raise GoError("special file")
            data, at = _content(archive, at, header.size), at + _padded(header.size)
            if kind == b"x":
                records = _records(data)
            elif kind == b"g":
                _records(data)
                records, long_name, long_link = {}, b"", b""
            elif kind == b"L":
                long_name = _string(data)
            else:
                long_link = _string(data)
            continue
        _merge(header, records)
        header.name, header.link = long_name or header.name, long_link or header.link
        if header.kind == b"\0":
            header.kind = b"5" if header.name.endswith(b"/") else b"0"
        stored = 0 if header.kind in b"123456" else header.size
        if stored < 0:
            raise GoError("size")
        if header.kind == b"S":
            pieces, at = _old_map(header, archive, block, at)
            data = _content(archive, at, stored)
        else:
            data = _content(archive, at, stored)
            pieces, data = _pax_map(header, records, data)
        at += _padded(stored)
        if pieces is not None:
            data = _spread(header, pieces, data)
        members.append(
            Member(header.name, header.kind, header.link, header.size, header.mode, header.uid, header.gid,
                   header.mtime, header.device, data)
        )  # fmt: skip
        records, long_name, long_link = {}, b"", b""


def _block(archive: bytes, at: int) -> tuple[bytes, int]:
    """The next header, b"" at the end: nothing, one block of zeros and nothing, or two."""
    block = archive[at : at + 512]
    if block and len(block) < 512:
        raise GoError("unexpected EOF")
    if block != bytes(512):
        return block, at + 512
    following = archive[at + 512 : at + 1024]
    if (following and len(following) < 512) or following.strip(b"\0"):
        raise GoError("goes on behind its end")
    return b"", at


def _form(block: bytes) -> int:
    counted = block[:148] + b" " * 8 + block[156:]
    if _octal(block[148:156]) not in (sum(counted), sum(struct.unpack("512b", counted))):
        raise GoError("checksum")
    if block[257:263] == b"ustar\0":
        return _STAR if block[508:] == b"tar\0" else _USTAR
    return _GNU if block[257:265] == b"ustar  \0" else _V7


def _string(field: bytes) -> bytes:
    return field.split(b"\0", 1)[0]


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    digits = _string(digits)
    if not digits or any(digit not in b"01234567" for digit in digits) or int(digits, 8) >= 2 * _INT64:
        raise GoError("octal")
    return int(digits, 8)


def _numeric(field: bytes) -> int:
    if not field[0] & 0x80:
        return _octal(field)
    bits = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << bits) - 1)
    value -= (1 << bits) if field[0] & 0x40 else 0
    if not -_INT64 <= value < _INT64:
        raise GoError("overflow")
    return value


def _integer(text: bytes) -> int:
    digits = text[1:] if text[:1] in (b"+", b"-") else text
    if not digits or any(digit not in b"0123456789" for digit in digits):
        raise GoError("integer")
    value = -int(digits) if text[:1] == b"-" else int(digits)
    if not -_INT64 <= value < _INT64:
        raise GoError("integer")
    return value


def _time(text: bytes) -> int:
    whole, _, fraction = text.partition(b".")
    seconds = _integer(whole)
    if fraction.strip(b"0123456789"):
        raise GoError("time")
    rest = int(fraction[:9].ljust(9, b"0"))
    return seconds * 10**9 + (-rest if whole.startswith(b"-") else rest)


def _records(data: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    pieces: list[bytes] = []
    while data:
        digits, space, _ = data.partition(b" ")
        length = _integer(digits) if space else 0
        if length < 5 or length > len(data) or length <= len(digits) + 1 or data[length - 1 : length] != b"\n":
            raise GoError("record")
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        data = data[length:]
        texts = value if key in (b"path", b"linkpath", b"uname", b"gname") else key
        if not equals or not key or b"\0" in texts:
            raise GoError("record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if key != (b"GNU.sparse.offset", b"GNU.sparse.numbytes")[len(pieces) % 2] or b"," in value:
                raise GoError("sparse")
            pieces.append(value)
        else:
            found[key] = value
    if pieces:
        found[b"GNU.sparse.map"] = b",".join(pieces)
    return found


def _merge(header: _Header, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if not value:
            continue
        if key == b"path":
            header.name = value
        elif key == b"linkpath":
            header.link = value
        elif key in (b"uid", b"gid", b"size"):
            setattr(header, key.decode(), _integer(value))
        elif key == b"mtime":
            header.mtime = _time(value)
        elif key in (b"atime", b"ctime"):
            _time(value)


def _content(archive: bytes, at: int, size: int) -> bytes:
    if at + size > len(archive):
        raise GoError("unexpected EOF")
    return archive[at : at + size]


def _padded(size: int) -> int:
    return -(-size // 512) * 512


def _old_map(header: _Header, archive: bytes, block: bytes, at: int) -> tuple[list[tuple[int, int]], int]:
    if header.form != _GNU:
        raise GoError("sparse")
    header.size = _numeric(block[483:495])
    pieces, table, count = [], block[386:], 4
    while True:
        for start in range(0, 24 * count, 24):
            if not table[start]:
                break
            pieces.append((_numeric(table[start : start + 12]), _numeric(table[start + 12 : start + 24])))
        if not table[24 * count]:
            return pieces, at
        table, count, at = _content(archive, at, 512), 21, at + 512


def _pax_map(header: _Header, records: dict[bytes, bytes], data: bytes) -> tuple[list[tuple[int, int]] | None, bytes]:
    major, minor = records.get(b"GNU.sparse.major", b""), records.get(b"GNU.sparse.minor", b"")
    leading = (major, minor) == (b"1", b"0")
    known = leading or (major, minor) in ((b"0", b"0"), (b"0", b"1"))
    if not known and (major or minor or not records.get(b"GNU.sparse.map")):
        return None, data
    header.name = records.get(b"GNU.sparse.name") or header.name
    if size := records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize"):
        header.size = _integer(size)
    if header.kind in b"123456":
        raise GoError("sparse")
    if leading:
        return _leading_map(data)
    count = _integer(records.get(b"GNU.sparse.numblocks", b""))
    text = records.get(b"GNU.sparse.map", b"")
    numbers = [_integer(each) for each in text.split(b",")] if text else []
    if len(numbers) != 2 * count:
        raise GoError("sparse")
    return list(zip(numbers[::2], numbers[1::2], strict=True)), data


def _leading_map(data: bytes) -> tuple[list[tuple[int, int]], bytes]:
    at = 0

    def feed(lines: int) -> None:
        nonlocal at
        while data[:at].count(b"\n") < lines:
            if at + 512 > len(data):
                raise GoError("sparse")
            at += 512

    feed(1)
    count = _integer(data[:at].split(b"\n")[0])
    if count < 0:
        raise GoError("sparse")
    feed(1 + 2 * count)
    numbers = [_integer(line) for line in data[:at].split(b"\n")[1 : 1 + 2 * count]]
    return list(zip(numbers[::2], numbers[1::2], strict=True)), data[at:]


def _spread(header: _Header, pieces: list[tuple[int, int]], data: bytes) -> bytes:
    """The pieces where they belong. Raises GoError as Go does when such a file is read to its end."""
    end = 0
    for offset, length in pieces:
        if offset < end or length < 0 or offset + length > header.size:
            raise GoError("sparse")
        end = offset + length
    if header.size < 0 or sum(length for _, length in pieces) != len(data):
        raise GoError("sparse")
    whole = bytearray(header.size)
    at = 0
    for offset, length in pieces:
        whole[offset : offset + length] = data[at : at + length]
        at += length
    return bytes(whole)
