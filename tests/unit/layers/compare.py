"""Whether scow sees in an archive what Go's archive/tar does."""

from __future__ import annotations

import io
from typing import Final

from tests.unit.layers import gotar

from scow.errors import Corrupt
from scow.layers.tar import Entry, TarReader

#: A sparse file may be of any size; larger ones aren't laid out to be compared.
_LARGEST: Final = 1 << 20


class TooLarge(Exception):
    """Not compared."""


def entries(archive: bytes) -> list[Entry]:
    """What scow reads. Raises Corrupt."""
    return [entry for entry, _ in read(archive)]


def read(archive: bytes) -> list[tuple[Entry, bytes]]:
    """The same with the whole content. Raises Corrupt, TooLarge."""
    source = io.BytesIO(archive)
    reader = TarReader(lambda: source.read(1 << 16))
    found = []
    for entry in reader:
        stored = b"".join(map(bytes, reader.data()))
        if entry.kind not in (b"0", b"1", b"2", b"3", b"4", b"5", b"6") or (entry.kind in b"12" and not entry.link):
            raise Corrupt("what the extractor refuses")
        if entry.sparse is not None:
            if entry.size > _LARGEST:
                raise TooLarge
            whole = bytearray(entry.size)
            at = 0
            for offset, length in entry.sparse:
                whole[offset : offset + length] = stored[at : at + length]
                at += length
            stored = bytes(whole)
        found.append((entry, stored))
    return found


def check_as_go(archive: bytes) -> str:
    """Raises AssertionError where scow takes an archive and Go sees other things in it; says what came of it."""
    try:
        found = read(archive)
    except TooLarge:
        return "too large"
    except Corrupt as error:
        return error.message.rpartition(": ")[2][:40]
    members = gotar.read(archive)
    assert [entry.name for entry, _ in found] == [member.name for member in members]
    for (entry, data), member in zip(found, members, strict=True):
        kind = b"0" if member.kind in b"7S" else member.kind
        assert (entry.kind, entry.link, data) == (kind, member.link, member.data)
        assert (entry.mode, entry.uid, entry.gid) == (member.mode, member.uid, member.gid)
        assert entry.mtime == member.mtime
        if kind in b"34":
            assert entry.device == member.device
        if kind == b"0":
            assert entry.size == member.size
    return f"{len(found)} entries"
