"""A blob's bytes into the sink: from where it stopped before, raw, in pieces worth the trouble.

The sink checks digest and size. Whatever came in before a failure is kept: the next attempt, here or at another
endpoint, goes on behind it.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Final
from urllib.parse import urlsplit

import trio

from scow.api import Descriptor, Sink

from ._endpoints import Endpoint
from ._failures import Failure, Verdict, from_no_answer
from ._http import Answer, NoAnswer
from ._session import Session
from ._split import Pace, Splitting, Whole, rest, trial

#: Smaller pieces are gathered: TLS gives 16 KiB at a time, and each write costs the sink a hash and a system call.
_PIECE: Final = 128 * 1024
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)", re.IGNORECASE)


async def fetch_blob(
    session: Session, endpoint: Endpoint, path: str, descriptor: Descriptor, sink: Sink, splitting: Splitting
) -> None:
    """Write the rest of a blob of the repository `path` into the sink. Raises Failure, and what the sink raises."""
    if sink.offset >= descriptor.size:
        return
    if descriptor.data is not None:
        await sink.write(descriptor.data[sink.offset :])
        return
    try:
        where, scope = f"/v2/{path}/blobs/{descriptor.digest}", f"repository:{path}:pull"
        async with session.get(endpoint, where, scope, _range(sink)) as answer:
            whole = Whole(session, endpoint, where, scope, descriptor.size, answer.header("etag"))
            split = await _receive(answer, descriptor, sink, _Watch(whole, splitting))
        if split:
            await rest(whole, splitting, sink)
    except Failure as failure:
        if failure.verdict is not Verdict.MISSING or not descriptor.urls or endpoint.mirror:
            raise
        await _fetch_foreign(session, failure, descriptor, sink)


async def _fetch_foreign(session: Session, missing: Failure, descriptor: Descriptor, sink: Sink) -> None:
    """Layers that may not be distributed lie elsewhere; their URLs come from the manifest, so only https will do."""
    failure = missing
    for url in descriptor.urls:
        if not _acceptable(url):
            failure = Failure(Verdict.AWAY, "the layer's own URL is not an https one")
            continue
        try:
            async with session.get_url(url, _range(sink)) as answer:
                await _receive(answer, descriptor, sink)
                return
        except Failure as error:
            failure = error
            failure.words = f"the layer lies elsewhere, and {urlsplit(url).netloc}: {failure.words}"
            if failure.verdict is Verdict.MISSING:
                # The image is there: this isn't the registry's "no such thing".
                failure.verdict = Verdict.AWAY
            # The registry itself did answer: its other scheme would say nothing else.
            failure.spoken = True
    raise failure


def _acceptable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return False


def _range(sink: Sink) -> list[tuple[str, str]]:
    return [("Range", f"bytes={sink.offset}-")] if sink.offset else []


class _Watch:
    """Looks after each write whether the connection is slow, and if so, whether its server gives parts."""

    def __init__(self, whole: Whole, splitting: Splitting) -> None:
        self._whole = whole
        self._splitting = splitting
        self._pace: Pace | None = splitting.pace(whole.endpoint)

    async def write(self, sink: Sink, data: bytes) -> bool:
        """Write; true when this connection isn't needed any more, because the rest can come in parts."""
        before = trio.current_time()
        await sink.write(data)
        if self._pace is None:
            return False
        self._pace.add(len(data), trio.current_time() - before)
        if not self._pace.is_slow(self._whole.size - sink.offset):
            return False
        self._pace = None
        return await trial(self._whole, self._splitting, sink)


async def _receive(answer: Answer, descriptor: Descriptor, sink: Sink, watch: _Watch | None = None) -> bool:
    """Write what comes; true when it was left off because the rest is better fetched in parts."""
    if answer.status == 416:
        had = sink.offset
        await sink.restart()
        raise Failure(Verdict.AWAY, f"has no bytes behind the first {had} (status 416)", again=True)
    if answer.status == 206 and sink.offset and _start(answer) != sink.offset:
        await sink.restart()
        raise Failure(Verdict.AWAY, "sends another part than the one asked for", again=True)
    if answer.status not in (200, 206):
        raise Failure(Verdict.AWAY, f"status {answer.status}")
    if answer.status == 200 and sink.offset:
        await sink.restart()
    try:
        if await _pour(answer, sink, watch):
            return True
    except NoAnswer as error:
        failure = from_no_answer(error)
        failure.words = f"{failure.words}, after {sink.offset} of {descriptor.size} bytes"
        raise failure from None
    if sink.offset < descriptor.size:
        raise Failure(Verdict.AWAY, f"sends {sink.offset} of {descriptor.size} bytes", again=True)
    return False


async def _pour(answer: Answer, sink: Sink, watch: _Watch | None) -> bool:
    """All that comes, gathered; when it stops early, what was gathered is written all the same."""
    gathered: list[bytes] = []
    size = 0
    try:
        async with aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                gathered.append(chunk)
                size += len(chunk)
                if size < _PIECE:
                    continue
                piece, gathered, size = chunk if len(gathered) == 1 else b"".join(gathered), [], 0
                if watch is None:
                    await sink.write(piece)
                elif await watch.write(sink, piece):
                    return True
    except NoAnswer:
        await sink.write(b"".join(gathered))
        raise
    if gathered:
        await sink.write(b"".join(gathered))
    return False


def _start(answer: Answer) -> int | None:
    match = _CONTENT_RANGE.fullmatch((answer.header("content-range") or "").strip())
    return int(match[1]) if match else None
