"""A tar archive as a sequence of entries, read once from front to back.

What a sender may get wrong is Corrupt, with the byte where it stands. Limits on metadata live here, because they must
hold before the bytes are in memory; limits on what is written live in the extractor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from scow.errors import Corrupt
from scow.layers import names, pax
from scow.layers.headers import (
    BLOCK,
    ZERO_BLOCK,
    Header,
    metadata_size,
    parse_header,
    parse_old_sparse,
    parse_sparse_extension,
)

#: The longest extended header or long name that is read (Go's archive/tar has the same limit).
META_MAX: Final = 1 << 20
#: Directories, links and nodes have no data.
_BARE: Final = frozenset(b"123456")
#: Among them those for which Go ignores a length, and GNU skips as much.
_NO_SIZE: Final = b"2346"
_DATA: Final = b"\x0007S"
#: Regular files under other flags than b"0"; with a slash behind the name the first is a directory (before POSIX).
_FILE: Final = b"\x007"
_METADATA: Final = b"xgLK"
#: Records that change no more than a field of the header.
_SIMPLE: Final = frozenset({b"path", b"linkpath", b"mtime", b"atime", b"ctime"})


class Entry(NamedTuple):
    """One member. `kind` is the type flag with all regular files as b"0"; `mtime` in nanoseconds since the epoch.

    `size` is the file's length; `sparse` holds (offset, length) pieces of what is stored, None for plain files.
    """

    name: bytes
    kind: bytes
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[str, bytes] | None
    sparse: Sequence[tuple[int, int]] | None


class TarReader:
    """Iterate it for entries; `data()` gives the current entry's stored bytes.

    `chunk` gives the archive's next bytes, of any length, and b"" at its end; its errors pass through.
    """

    def __init__(self, chunk: Callable[[], bytes]) -> None:
        self._chunk = chunk
        self._buffer = b""
        self._view = memoryview(self._buffer)
        self._at = 0
        #: Bytes of the archive before the buffer.
        self._before = 0
        #: Stored bytes of the current entry that were not read yet, and the padding behind them.
        self._left = 0
        self._padding = 0

    @property
    def offset(self) -> int:
        """Bytes of the archive read so far."""
        return self._before + self._at

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self._next()) is not None:
            yield entry

    def data(self) -> Iterator[memoryview]:
        """The current entry's stored bytes, in pieces as they lie in the buffer. Raises Corrupt when cut short."""
        at, left = self._at, self._left
        if at + left > len(self._buffer):
            return self._pieces()
        # Most files are small.
        self._at, self._left = at + left, 0
        return iter((self._view[at : at + left],) if left else ())

    def _pieces(self) -> Iterator[memoryview]:
        while self._left:
            if self._at == len(self._buffer) and not self._refill():
                raise Corrupt(f"tar archive ends within a file's data, at byte {self.offset}")
            piece = self._view[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read to the end of the stream: what stands behind the archive belongs to the layer's digest."""
        self._at = len(self._buffer)
        while self._refill():
            self._at = len(self._buffer)

    def _refill(self) -> bool:
        self._before += len(self._buffer)
        self._buffer = self._chunk()
        self._view = memoryview(self._buffer)
        self._at = 0
        return bool(self._buffer)

    def _block(self) -> bytes:
        """The next 512 bytes, b"" at the stream's end. Raises Corrupt for less."""
        at = self._at
        block = self._buffer[at : at + BLOCK]
        self._at = at + len(block)
        if len(block) == BLOCK:
            return block
        while len(block) < BLOCK:
            if not self._refill():
                if block:
                    raise Corrupt(f"tar archive ends within a block, at byte {self.offset}")
                return b""
            rest = self._buffer[: BLOCK - len(block)]
            self._at = len(rest)
            block += rest
        return block

    def _skip(self, count: int) -> None:
        while count:
            here = len(self._buffer) - self._at
            if here >= count:
                self._at += count
                return
            count -= here
            if not self._refill():
                raise Corrupt(f"tar archive is cut short, at byte {self.offset}")

    def _pad(self, count: int) -> None:
        """What fills a block up. Behind the last file it may be missing, as `umoci insert` leaves it out."""
        while count and (self._at < len(self._buffer) or self._refill()):
            step = min(count, len(self._buffer) - self._at)
            self._at += step
            count -= step

    def _take(self, size: int) -> bytes:
        """A metadata entry's content."""
        if size > META_MAX:
            raise Corrupt(f"tar archive has {size} bytes of metadata for one entry, at byte {self.offset}")
        self._left = size
        data = b"".join(self.data())
        self._skip(-size % BLOCK)
        return data

    def _next(self) -> Entry | None:
        if self._left or self._padding:
            self._skip(self._left)
            self._pad(self._padding)
            self._left = self._padding = 0
        own: pax.Records = {}
        long: pax.Records = {}
        while True:
            start = self._before + self._at
            block = self._block()
            if not block or block == ZERO_BLOCK:
                self._end(bool(block), bool(own or long))
                return None
            try:
                kind = block[156:157]
                if kind not in _METADATA:
                    return self._entry(parse_header(block), block, pax.with_long(own, long) if long else own)
                own = self._metadata(kind, metadata_size(block), own, long)
            except ValueError as error:
                name = names.show(block[:100].partition(b"\0")[0])
                raise Corrupt(f"tar archive, header at byte {start} ({name}): {error}") from None

    def _end(self, marked: bool, pending: bool) -> None:
        """Two zero blocks end an archive; one, or none, is taken as its end when nothing follows (as Go does)."""
        if pending:
            raise Corrupt("tar archive ends behind an extended header")
        if marked and self._block() not in (b"", ZERO_BLOCK):
            raise Corrupt(f"tar archive goes on behind its end, at byte {self.offset}")

    def _metadata(self, kind: bytes, size: int, own: pax.Records, long: pax.Records) -> pax.Records:
        """Read what stands before an entry: the records that hold for it from now on, or a name put into `long`."""
        data = self._take(size)
        if kind == b"x":
            # The last one counts alone, for Go as for GNU.
            return pax.parse_records(data)
        if kind == b"g":
            pax.check_common(pax.parse_records(data))
            if own or long:
                raise ValueError("a global header stands between an entry and its own")
            return own
        name = data.partition(b"\0")[0]
        if not name:
            raise ValueError("a long name is empty")
        long[b"path" if kind == b"L" else b"linkpath"] = name
        return own

    def _entry(self, header: Header, block: bytes, own: pax.Records) -> Entry:
        kind = header.kind
        if kind == b"S" or not own.keys() <= _SIMPLE:
            return self._extended(header, block, own)
        # Nearly all entries: a header, and no more before it than a long name or an exact time.
        name, link, mtime = header.name, header.link, b""
        if own:
            name, link = own.get(b"path") or name, own.get(b"linkpath") or link
            mtime = own.get(b"mtime", b"")
        if kind in _FILE or name[-1:] == b"/":
            kind = _regular(kind, name, header.size)
        if kind[0] in _BARE:
            stored = 0
            if header.size and kind in _NO_SIZE:
                raise ValueError("what has no content has a length")
        else:
            stored = header.size
        self._left, self._padding = stored, -stored % BLOCK
        return Entry(
            name, kind, stored, header.mode, header.uid, header.gid,
            pax.nanoseconds(mtime) if mtime else header.mtime * 1_000_000_000, link, header.device, None, None,
        )  # fmt: skip

    def _extended(self, header: Header, block: bytes, records: pax.Records) -> Entry:
        form = pax.sparse_form(records)
        size = _number(records, b"size", header.size)
        kind = _regular(header.kind, records.get(b"path") or header.name, size)
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or header.name
        bare = kind[0] in _BARE
        if bare and size and (kind in _NO_SIZE or (kind == b"1" and b"size" in records)):
            raise ValueError("what has no content has a length")
        if form and (kind != b"0" or name.endswith(b"/")):
            raise ValueError("what is no regular file is sparse")
        stored = 0 if bare else size
        self._left, self._padding = stored, -stored % BLOCK
        sparse = None
        if kind == b"S":
            if b"size" in records:
                raise ValueError("a sparse file of GNU's old form has a pax record of its size")
            pieces, size = self._old_map(block)
            sparse = pax.check_map(pieces, self._left, size)
        elif form:
            leading, size = form
            sparse = pax.check_map(self._leading_map() if leading else pax.sparse_map(records), self._left, size)
        mtime = records.get(b"mtime")
        return Entry(
            name,
            b"0" if kind in _DATA else kind,
            0 if bare else size,
            header.mode,
            _number(records, b"uid", header.uid),
            _number(records, b"gid", header.gid),
            pax.nanoseconds(mtime) if mtime else header.mtime * 1_000_000_000,
            records.get(b"linkpath") or header.link,
            header.device,
            pax.xattrs(records) or None,
            sparse,
        )

    def _old_map(self, block: bytes) -> tuple[Sequence[tuple[int, int]], int]:
        pieces, size, more = parse_old_sparse(block)
        while more:
            if len(pieces) > META_MAX // 24:
                raise ValueError("a sparse map is too long")
            block = self._block()
            if not block:
                raise ValueError("the archive ends within a sparse map")
            further, more = parse_sparse_extension(block)
            pieces += further
        return pieces, size

    def _leading_map(self) -> pax.Pieces:
        reader = pax.MapReader()
        while self._left >= BLOCK:
            block = self._block()
            self._left -= BLOCK
            if not block:
                break
            if (pieces := reader.feed(block)) is not None:
                return pieces
        raise ValueError("a sparse map is cut short")


def _number(records: pax.Records, key: bytes, otherwise: int) -> int:
    value = records.get(key)
    return pax.decimal(value) if value else otherwise


def _regular(kind: bytes, name: bytes, size: int) -> bytes:
    """The flag of a file under any of its flags, or of a directory of before POSIX. Raises ValueError."""
    if name[-1:] != b"/":
        return b"0" if kind in _FILE else kind
    if kind in b"07S":
        raise ValueError("a regular file's name ends with a slash: it is a directory to some")
    if kind == b"\0" and size:
        raise ValueError("what has no content has a length")
    return b"5" if kind == b"\0" else kind
