"""One large blob over several connections, where a server gives each of them only so much; the sink gets it in order.

A blob begins over one connection. Only when that one turns out slow while much is left are parts of the rest asked for
side by side (RFC 9110, section 14), a bounded number ahead of what was written. The first part is a trial: until it
came as asked, the connection that there is stays open: a server that knows no ranges costs nothing but the question.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final

import trio

from scow.api import Sink

from ._endpoints import Endpoint
from ._failures import Failure, Verdict, from_no_answer
from ._http import Answer, NoAnswer
from ._session import Session

#: Bytes of a part: large beside what a request costs, small beside what memory there is.
PART: Final = 2 * 1024 * 1024
#: Parts that are there or on their way, for each connection.
_AHEAD: Final = 2
#: How long the trial may take, in seconds.
_TRIAL: Final = 15.0
_RANGE: Final = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.IGNORECASE)


@dataclass(slots=True)
class Splitting:
    """When blobs are split, and what one trio run has learned about that."""

    #: Connections for parts, of all blobs together; 1: never split.
    connections: int
    #: Bytes that must be left.
    least: int
    #: A connection that brought fewer bytes a second than `slow` for `after` seconds is slow.
    slow: float
    after: float
    #: Endpoints that turned out not to like it.
    refused: set[str] = field(default_factory=set)
    _limiter: trio.CapacityLimiter | None = None

    @property
    def limiter(self) -> trio.CapacityLimiter:
        """One place for each connection."""
        if self._limiter is None:
            self._limiter = trio.CapacityLimiter(self.connections)
        return self._limiter

    def pace(self, endpoint: Endpoint) -> Pace | None:
        """A watch over a connection; None when it needn't be watched."""
        return Pace(self) if self.connections > 1 and endpoint.base not in self.refused else None


class Pace:
    """How fast a connection is; the time that the sink takes for itself doesn't count."""

    def __init__(self, rules: Splitting) -> None:
        self._rules = rules
        self._began = trio.current_time()
        self._came = 0

    def add(self, came: int, sink_seconds: float) -> None:
        """Bytes that were handed to the sink, and how long that took."""
        self._came += came
        self._began += sink_seconds

    def is_slow(self, left: int) -> bool:
        """Whether parts side by side would be worth it for the `left` bytes."""
        seconds = trio.current_time() - self._began
        return left >= self._rules.least and seconds >= self._rules.after and self._came < self._rules.slow * seconds


@dataclass(frozen=True, slots=True)
class Whole:
    """The blob that is split, and where it is."""

    session: Session
    endpoint: Endpoint
    path: str
    scope: str
    size: int
    #: The ETag of its first answer, where there was one.
    etag: str | None

    async def part(self, first: int) -> bytes:
        """The part that begins at `first`. Raises Failure."""
        last = min(first + PART, self.size) - 1
        headers = [("Range", f"bytes={first}-{last}")]
        async with self.session.get(self.endpoint, self.path, self.scope, headers) as answer:
            self._check(answer, first, last)
            data = bytearray()
            try:
                async with aclosing(answer.chunks()) as chunks:
                    async for chunk in chunks:
                        data += chunk
                        if len(data) > last - first + 1:
                            raise Failure(Verdict.AWAY, "sends more than the part that was asked for", again=True)
            except NoAnswer as error:
                raise from_no_answer(error) from None
        if len(data) <= last - first:
            raise Failure(Verdict.AWAY, f"sends {len(data)} bytes of a part of {last - first + 1}", again=True)
        return bytes(data)

    def _check(self, answer: Answer, first: int, last: int) -> None:
        match = _RANGE.fullmatch((answer.header("content-range") or "").strip())
        if answer.status != 206 or match is None:
            raise Failure(Verdict.AWAY, f"answers with status {answer.status} when asked for a part", again=True)
        if match[1] != str(first) or match[2] != str(last) or match[3] not in ("*", str(self.size)):
            raise Failure(Verdict.AWAY, "sends another part than the one asked for", again=True)
        etag = answer.header("etag")
        if etag is not None and self.etag is not None and etag != self.etag:
            raise Failure(Verdict.AWAY, "sends parts of something that has changed meanwhile", again=True)


async def trial(whole: Whole, rules: Splitting, sink: Sink) -> bool:
    """Write the next part, if the server gives it as asked; else write nothing and never ask this server again."""
    data = None
    with trio.move_on_after(_TRIAL):
        try:
            data = await whole.part(sink.offset)
        except Failure:
            data = None
    if data is None:
        rules.refused.add(whole.endpoint.base)
        return False
    await sink.write(data)
    return True


class _Part:
    """One part on its way."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.came = trio.Event()
        self.data = b""
        self.problem: Exception | None = None

    async def fetch(self, whole: Whole, limiter: trio.CapacityLimiter) -> None:
        """Never raises: who writes the parts in order comes to the problem when all before it is written."""
        try:
            async with limiter:
                self.data = await whole.part(self.first)
        except Exception as error:  # noqa: BLE001 - raised again by `rest`
            self.problem = error
        self.came.set()


async def rest(whole: Whole, rules: Splitting, sink: Sink) -> None:
    """Write all that is left, in order, from parts that come side by side. Raises Failure, and what the sink raises.

    Whatever came before a failure in an unbroken row is written. A server that fails here isn't asked for parts again.
    """
    problem: Exception | None = None
    async with trio.open_nursery() as nursery:

        def begin(first: int) -> _Part:
            part = _Part(first)
            nursery.start_soon(part.fetch, whole, rules.limiter)
            return part

        try:
            await _write(sink, iter(range(sink.offset, whole.size, PART)), begin, rules.connections * _AHEAD)
        except Exception as error:  # noqa: BLE001 - out of the nursery, which would make a group of it
            problem = error
        nursery.cancel_scope.cancel()
    if isinstance(problem, Failure):
        rules.refused.add(whole.endpoint.base)
    if problem is not None:
        raise problem


async def _write(sink: Sink, firsts: Iterator[int], begin: Callable[[int], _Part], ahead: int) -> None:
    coming: deque[_Part] = deque()
    while True:
        while len(coming) < ahead and (first := next(firsts, None)) is not None:
            coming.append(begin(first))
        if not coming:
            return
        part = coming.popleft()
        await part.came.wait()
        if part.problem is not None:
            raise part.problem
        await sink.write(part.data)
