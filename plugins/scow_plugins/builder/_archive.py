"""ADD of an archive: its entries become the layer's, at the target. gzip, bzip2, xz, zstd, or plain tar.

The content says what it is, never the name. Entries that lead out of the target are refused.
"""

from __future__ import annotations

import bz2
import io
import lzma
import posixpath
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from scow.api import Corrupt, Invalid
from scow.api.layers import Entry, Member, TarReader, plain
from scow_plugins.builder._layout import Layout

BLOCK: Final = 512
#: What the modules of bzip2 and xz raise for data that is none.
BROKEN: Final = (OSError, EOFError, lzma.LZMAError, ValueError)
#: gzip, bzip2, xz, zstd.
_MAGICS: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_ZEROS: Final = bytes(1 << 16)
_CHUNK: Final = 1 << 20


class Stream(io.RawIOBase):
    """Bytes out of an iterator, to be read like a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def is_archive(pieces: Iterator[bytes]) -> bool:
    """Whether a file is a tar archive, perhaps compressed. Its first block is looked at, unpacked."""
    try:
        head = b""
        for piece in opened(pieces):
            head += piece
            if len(head) >= BLOCK:
                break
    except (Corrupt, OSError, EOFError, lzma.LZMAError, ValueError):
        return False
    return len(head) >= BLOCK and _is_header(head[:BLOCK])


def looks_like_archive(head: bytes) -> bool:
    """Whether what begins like this is an archive or something compressed, and no text; a block is enough."""
    return head.startswith(_MAGICS) or (len(head) >= BLOCK and _is_header(head[:BLOCK]))


def _is_header(block: bytes) -> bool:
    """The checksum of a header is right (pax(1), "ustar Interchange Format")."""
    try:
        stated = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    return sum(block[:148]) + 8 * 32 + sum(block[156:]) == stated and any(block[:100])


def opened(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The bytes behind a compression. Raises Corrupt, and what the modules of bzip2 and xz raise."""
    source = Stream(pieces)
    head = b""
    while len(head) < 6 and (more := source.read(6 - len(head))):
        head += more
    whole = Stream(_with_head(head, source))
    if head.startswith(b"BZh"):
        return _chunks(bz2.BZ2File(cast(BinaryIO, io.BufferedReader(whole))))
    if head.startswith(b"\xfd7zXZ\0"):
        return _chunks(lzma.LZMAFile(cast(BinaryIO, io.BufferedReader(whole))))
    return plain(cast(BinaryIO, whole))


def _with_head(head: bytes, source: Stream) -> Iterator[bytes]:
    if head:
        yield head
    while piece := source.read(_CHUNK):
        yield piece


def _chunks(file: bz2.BZ2File | lzma.LZMAFile) -> Iterator[bytes]:
    while piece := file.read(_CHUNK):
        yield piece


def unpack(pieces: Iterator[bytes], layout: Layout, target: str, owner: tuple[int, int] | None = None) -> None:
    """Put an archive's entries beneath a directory of the image. Raises Corrupt, Invalid.

    `owner` None leaves them their own owners.
    """
    layout.directory(layout.settle(target))
    stream = opened(pieces)
    reader = TarReader(lambda: next(stream, b""))
    try:
        for entry in reader:
            name = _clean(entry.name)
            if not name:
                continue
            link = _clean(entry.link) if entry.kind == b"1" else entry.link
            data = _whole(entry, reader.data()) if entry.kind == b"0" else iter(())
            member = Member(
                name,
                entry.kind,
                entry.mode & 0o7777,
                entry.uid,
                entry.gid,
                entry.size if entry.kind == b"0" else 0,
                entry.mtime,
                link,
                entry.device,
                entry.xattrs,
            )
            layout.entry(member, data, target, owner)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise Corrupt(f"the archive can't be read: {error}") from None


def _whole(entry: Entry, stored: Iterator[memoryview]) -> Iterator[bytes]:
    """A file's bytes with its holes."""
    if entry.sparse is None:
        yield from map(bytes, stored)
        return
    at = 0
    rest = b""
    for offset, length in entry.sparse:
        yield from _zeros(offset - at)
        left = length
        while left:
            piece = rest or bytes(next(stored))
            yield piece[:left]
            rest = piece[left:]
            left -= len(piece[:left])
        at = offset + length
    yield from _zeros(entry.size - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= len(_ZEROS[:count])


def _clean(name: bytes) -> bytes:
    """A name relative to the target. Raises Invalid for one that leads out of it."""
    text = posixpath.normpath(name.decode(errors="surrogateescape").lstrip("/") or ".")
    if text == ".." or text.startswith("../"):
        raise Invalid(f"the archive has an entry that leads out of its target: {name!r}")
    return b"" if text == "." else text.encode(errors="surrogateescape")
