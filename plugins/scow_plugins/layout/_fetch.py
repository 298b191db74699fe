"""A blob's bytes out of a directory or an archive, from where the sink stands."""

from __future__ import annotations

from typing import Final

import trio

from scow.api import Corrupt, Descriptor, NotFound, Sink, Source

from ._files import read_at
from ._resolve import find_blob

_PIECE: Final = 1024 * 1024


async def fetch_blob(source: Source, descriptor: Descriptor, sink: Sink) -> None:
    """See the hook. Raises NotFound, Denied, Corrupt, and what the sink raises."""
    span = await trio.to_thread.run_sync(find_blob, source, descriptor.digest)
    where = f"{source.plugin}:{source.location.rpartition(' for ')[0]}"
    if span is None:
        raise NotFound(f"blob {descriptor.digest} is not in {where}")
    if span.size != descriptor.size:
        raise Corrupt(f"blob {descriptor.digest} in {where} has {span.size} bytes, not {descriptor.size}")
    while sink.offset < descriptor.size:
        piece = await trio.to_thread.run_sync(read_at, span, sink.offset, _PIECE)
        if not piece:
            raise Corrupt(f"blob {descriptor.digest} in {where} is cut short")
        await sink.write(piece)
