"""Blocks of archives with fields as they are given, for what no writer of archives would write."""

from __future__ import annotations

USTAR, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)


def header(
    name: bytes = b"a",
    kind: bytes = b"0",
    size: int | bytes = 0,
    link: bytes = b"",
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    magic: bytes = USTAR,
    device: bytes = b"0000000\x000000000\0",
    rest: bytes = b"",
    checksum: bytes = b"%06o\0 ",
) -> bytes:
    """A header block whose fields are as they are given."""
    length = b"%011o\0" % size if isinstance(size, int) else size
    block = name.ljust(100, b"\0") + mode + uid + gid + length + mtime + b" " * 8 + kind + link.ljust(100, b"\0")
    block += magic + bytes(64) + device + rest.ljust(167, b"\0")
    assert len(block) == 512
    return block[:148] + (checksum % sum(block) if b"%" in checksum else checksum) + block[156:]


def padded(data: bytes) -> bytes:
    """Up to the block's end."""
    return data + bytes(-len(data) % 512)


def record(key: bytes, value: bytes) -> bytes:
    """`length key=value\\n`."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def extended(*records: tuple[str, str], kind: bytes = b"x", fields: dict[str, bytes] | None = None) -> bytes:
    """A pax header of these records."""
    data = b"".join(record(key.encode(), value.encode()) for key, value in records)
    return header(b"pax", kind, len(data), **(fields or {})) + padded(data)  # type: ignore[arg-type]


def long(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's header for a long name."""
    return header(b"././@LongLink", kind, len(name) + 1, magic=GNU) + padded(name + b"\0")


def old_sparse(pairs: bytes, stored: bytes, size: bytes = b"00000010000\0", more: bytes = b"\0") -> bytes:
    """A file in GNU's old sparse form: its table of up to four pairs, and what is stored."""
    rest = bytes(41) + pairs.ljust(96, b"\0") + more + size
    return header(b"s", b"S", len(stored), magic=GNU, rest=rest) + padded(stored)


def pair(offset: int, length: int) -> bytes:
    """One piece of such a table."""
    return b"%011o\0%011o\0" % (offset, length)
