"""Compressed layers as streams of plain bytes: gzip (isal), zstd, none.

The bytes decide, not the media type: mislabelled layers are common, and containerd looks at the magic as well. The diff
ID check makes that safe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, cast

from scow.errors import Corrupt

#: What is asked of a blob at a time, and the most that is given on at a time.
_READ: Final = 1024 * 1024
_CHUNK: Final = 1024 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
#: The largest window that a frame may ask for (zstd --long=27, what `zstd -d` allows by itself).
_ZSTD_WINDOW: Final = 1 << 27


def sniff(head: bytes) -> str:
    """`gzip`, `zstd` or `none`, from a stream's first bytes (four are enough)."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    # A skippable frame (RFC 8878, 3.1.2) may come first.
    if head.startswith(_ZSTD_MAGIC) or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return "zstd"
    return "none"


def plain(raw: BinaryIO) -> Iterator[bytes]:
    """The uncompressed bytes behind `raw`, in chunks. Raises Corrupt; `raw`'s own errors pass through."""
    head = b""
    while len(head) < 4 and (more := raw.read(_READ)):
        head += more
    return _CODECS[sniff(head)](_Pushed(head, raw))


class _Pushed:
    """A reader with bytes put back in front."""

    def __init__(self, head: bytes, raw: BinaryIO) -> None:
        self._head, self._raw = head, raw

    def read(self, size: int = _READ) -> bytes:
        if self._head:
            head, self._head = self._head[:size], self._head[size:]
            return head
        return self._raw.read(size)


def _none(source: _Pushed) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def _gzip(source: _Pushed) -> Iterator[bytes]:
    """Every member in turn (RFC 1952, 2.2). NULs behind the last one are padding; anything else there is Corrupt."""
    from isal import igzip_lib

    broken = cast(type[Exception], igzip_lib.IsalError)

    data = source.read()
    while data:
        member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        try:
            while not member.eof:
                if chunk := member.decompress(data, _CHUNK):
                    yield chunk
                data = b""
                if member.needs_input and not member.eof and not (data := source.read()):
                    raise Corrupt("gzip data is cut short")
        except broken as error:
            raise Corrupt(f"gzip data is broken: {error}") from None
        data = (member.unused_data or source.read()).lstrip(b"\0")
        while not data and (data := source.read()):
            data = data.lstrip(b"\0")


def _zstd(source: _Pushed) -> Iterator[bytes]:
    """Every frame in turn. A cut within the last frame shows only in the archive or the diff ID."""
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    # The one reader of the package that bounds what a call gives (a bomb has a thousand times its size and more).
    reader = context.stream_reader(cast(BinaryIO, source), read_size=_READ, read_across_frames=True)
    try:
        while chunk := reader.read(_CHUNK):
            yield chunk
    except zstandard.ZstdError as error:
        raise Corrupt(f"zstd data is broken: {error}") from None


_CODECS: Final[dict[str, Callable[[_Pushed], Iterator[bytes]]]] = {"none": _none, "gzip": _gzip, "zstd": _zstd}
