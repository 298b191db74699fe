"""Blobs and manifests into a registry (distribution-spec, "Pushing"): look, mount, else upload; manifests as they are.

Nothing is sent that is there already. A large blob goes in pieces, and after a failure on from where the registry says
that it stands; a registry that refuses pieces gets it in one.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal, TypeVar
from urllib.parse import urlencode

import trio

from scow.api import Corrupt, Descriptor, Digest, Document, Invalid, Named, Reference, Unsupported

from ._endpoints import Endpoint, Rules
from ._failures import Failure, Verdict, from_no_answer, most_telling, push_error
from ._http import Answer, Body, NoAnswer
from ._redirects import Refused, next_step
from ._retry import Policy
from ._session import Session

T = TypeVar("T")
OpenBlob = Callable[[], BinaryIO]
Report = Callable[[int], None]
#: Blobs larger than this go in pieces of this size. Storage services want 5 MiB and more; memory is no matter.
CHUNK: Final = 32 * 1024 * 1024
_READ: Final = 256 * 1024
_NO_MATTER: Final = 64 * 1024
_RANGE: Final = re.compile(r"(?:bytes=)?0-(\d{1,18})")
#: What a registry says that doesn't take pieces, or not these.
_NO_PIECES: Final = frozenset({400, 404, 405, 411, 415, 416, 501})
#: What it says of a blob that isn't there, and where it doesn't answer HEAD, or not those who may only write: then
#: nobody knows whether the blob is there, and it is sent. What is wrong beside that is told by the upload.
_NOT_SEEN: Final = frozenset({400, 403, 404, 405, 406, 410, 415, 501})


@dataclass(slots=True)
class _Upload:
    """An upload on its way: where its next bytes go, and how many are there."""

    location: str
    offset: int = 0


class Pusher:
    """One repository at one endpoint, as a `Destination`."""

    def __init__(self, session: Session, rules: Rules, endpoint: Endpoint, name: Named, policy: Policy) -> None:
        self._session = session
        self._rules = rules
        self._endpoint = endpoint
        self._name = name
        self._policy = policy
        self._base = f"{endpoint.base}/v2/{name.path}"
        self._scope = push_scope(name.path)

    async def blob(
        self, descriptor: Descriptor, open_blob: OpenBlob, origins: tuple[str, ...], report: Report
    ) -> Literal["exists", "mounted", "pushed"]:
        """See `Destination`."""
        try:
            if await self._persist(lambda: self._has(descriptor)):
                return "exists"
            upload, mounted = await self._persist(lambda: self._begin(descriptor, origins))
            if mounted:
                return "mounted"
            if descriptor.size > CHUNK and await self._in_pieces(upload, descriptor, open_blob, report):
                return "pushed"
            await self._whole(upload, descriptor, open_blob, report)
        except Failure as failure:
            raise push_error(f"blob {descriptor.digest.short}", self._name, failure) from None
        return "pushed"

    async def manifest(self, document: Document, name: Reference | None) -> None:
        """See `Destination`."""
        if name is not None and (not isinstance(name, Named) or name.repository != self._name.repository):
            raise Unsupported(f"{name} doesn't belong to the repository {self._name.repository}")
        tag = name.tag if isinstance(name, Named) else None
        try:
            await self._persist(lambda: self._put(document, tag or str(document.descriptor.digest)))
        except Failure as failure:
            raise push_error(f"manifest {self._name.familiar}", self._name, failure) from None

    async def _has(self, descriptor: Descriptor) -> bool:
        url = f"{self._base}/blobs/{descriptor.digest}"
        async with self._session.ask("HEAD", self._endpoint, url, self._scope, also=_NOT_SEEN) as answer:
            return answer.status not in _NOT_SEEN

    async def _begin(self, descriptor: Descriptor, origins: tuple[str, ...]) -> tuple[_Upload, bool]:
        """An upload, and whether the blob came from another repository, so that there is nothing to send."""
        wanted: dict[str, str] = {}
        scope = self._scope
        for origin in origins[:1]:
            domain, _, path = origin.partition("/")
            if domain == self._name.domain and path != self._name.path:
                wanted = {"mount": str(descriptor.digest), "from": path}
                scope = f"{scope} repository:{path}:pull"
        try:
            return await self._start(wanted, scope)
        except Failure as failure:
            if not wanted or failure.again:
                raise
            # We may write here without being allowed to read there.
            return await self._start({}, self._scope)

    async def _start(self, wanted: dict[str, str], scope: str) -> tuple[_Upload, bool]:
        url = f"{self._base}/blobs/uploads/" + (f"?{urlencode(wanted)}" if wanted else "")
        async with self._session.ask("POST", self._endpoint, url, scope) as answer:
            if answer.status == 201 and wanted:
                return _Upload(""), True
            return _Upload(self._location(answer, url)), False

    async def _whole(self, upload: _Upload, descriptor: Descriptor, open_blob: OpenBlob, report: Report) -> None:
        """One PUT; tried again with an upload of its own, because nobody knows what a broken one has taken."""

        async def send() -> None:
            nonlocal upload
            upload = upload if upload.location else (await self._start({}, self._scope))[0]
            location, upload = upload.location, _Upload("")
            body = Body(descriptor.size, lambda: _pieces(open_blob, 0, descriptor.size, report))
            await self._finish(location, descriptor, body)

        await self._persist(send)

    async def _in_pieces(self, upload: _Upload, descriptor: Descriptor, open_blob: OpenBlob, report: Report) -> bool:
        """PATCH after PATCH; false, with nothing sent that counts, when the registry takes no pieces."""
        while upload.offset < descriptor.size:
            before = upload.offset
            try:
                await self._persist(lambda: self._piece(upload, descriptor, open_blob, report))
            except Failure as failure:
                if before or failure.again or failure.status not in _NO_PIECES:
                    raise
                upload.location = ""
                return False
        await self._persist(lambda: self._finish(upload.location, descriptor, b""))
        return True

    async def _piece(self, upload: _Upload, descriptor: Descriptor, open_blob: OpenBlob, report: Report) -> None:
        start, end = upload.offset, min(upload.offset + CHUNK, descriptor.size)
        headers = (("Content-Type", "application/octet-stream"), ("Content-Range", f"{start}-{end - 1}"))
        body = Body(end - start, lambda: _pieces(open_blob, start, end, report))
        try:
            async with self._session.ask(
                "PATCH", self._endpoint, upload.location, self._scope, headers, body, frozenset()
            ) as answer:
                taken = _taken(answer)
                upload.location = self._location(answer, upload.location)
                upload.offset = end if taken is None else taken
        except Failure as failure:
            if failure.again or failure.status == 416:
                await self._ask_progress(upload)
                failure.again = failure.again or upload.offset > start
            raise
        if not start < upload.offset <= end:
            raise Failure(Verdict.AWAY, f"says that it has {upload.offset} bytes where {end} were sent")

    async def _ask_progress(self, upload: _Upload) -> None:
        """Where an upload stands after a failure; unknown: as before."""
        with suppress(Failure):
            async with self._session.ask("GET", self._endpoint, upload.location, self._scope) as answer:
                taken = _taken(answer)
                upload.offset = upload.offset if taken is None else taken
                if answer.header("location"):
                    upload.location = self._location(answer, upload.location)

    async def _finish(self, location: str, descriptor: Descriptor, body: bytes | Body) -> None:
        url = location + ("&" if "?" in location else "?") + urlencode({"digest": str(descriptor.digest)})
        headers = (("Content-Type", "application/octet-stream"),)
        async with self._session.ask("PUT", self._endpoint, url, self._scope, headers, body, frozenset()):
            pass

    async def _put(self, document: Document, reference: str) -> None:
        url = f"{self._base}/manifests/{reference}"
        headers = (("Content-Type", document.descriptor.media_type),)
        async with self._session.ask(
            "PUT", self._endpoint, url, self._scope, headers, document.data, frozenset()
        ) as answer:
            claimed = answer.header("docker-content-digest")
        stored = document.descriptor.digest
        with suppress(Invalid):
            stored = Digest.parse(claimed) if claimed else stored
        if stored.algorithm == document.descriptor.digest.algorithm and stored != document.descriptor.digest:
            raise Corrupt(f"{self._endpoint} has stored manifest {document.descriptor.digest} as {stored}")

    def _location(self, answer: Answer, url: str) -> str:
        """Where the upload goes on: a stranger's text, held to the rules of redirects."""
        try:
            return next_step(url, answer.header("location") or "", self._rules).url
        except Refused:
            raise Failure(Verdict.AWAY, "names a place for the upload that is no URL, or not encrypted") from None

    async def _persist(self, step: Callable[[], Awaitable[T]]) -> T:
        """Try again what may work a moment later."""
        done = 0
        while True:
            try:
                return await step()
            except NoAnswer as error:
                failure = from_no_answer(error)
            except Failure as error:
                failure = error
            done += 1
            pause = self._policy.pause(done, failure.retry_after) if failure.again else None
            if pause is None:
                raise failure
            await trio.sleep(pause)


def push_scope(path: str) -> str:
    """What a token must allow for sending to a repository."""
    return f"repository:{path}:pull,push"


async def choose_endpoint(session: Session, rules: Rules, name: Named) -> Endpoint:
    """The first endpoint that takes images in and speaks, logged in. Raises ScowError."""
    failures: dict[Endpoint, Failure] = {}
    for endpoint in rules.endpoints(name.domain, "push"):
        if any(failed.host == endpoint.host and known.spoken for failed, known in failures.items()):
            continue
        try:
            url = f"{endpoint.base}/v2/"
            async with session.ask("GET", endpoint, url, push_scope(name.path), also=frozenset({404})) as answer:
                await answer.read(_NO_MATTER)
                return endpoint
        except Failure as failure:
            failures[endpoint] = failure
        except NoAnswer as error:
            failures[endpoint] = from_no_answer(error)
    raise push_error(f"image {name.familiar}", name, most_telling(failures))


def _taken(answer: Answer) -> int | None:
    """How many bytes of an upload the registry has, where it says so."""
    match = _RANGE.fullmatch((answer.header("range") or "").strip())
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else None  # `0-0` is said of one byte, and of none


async def _pieces(open_blob: OpenBlob, start: int, end: int, report: Report) -> AsyncGenerator[bytes, None]:
    with open_blob() as file:
        file.seek(start)
        while start < end:
            piece = await trio.to_thread.run_sync(file.read, min(_READ, end - start))
            if not piece:
                raise Corrupt("a blob in the store is shorter than its descriptor says", hint="pull the image again")
            yield piece
            start += len(piece)
            report(start)
