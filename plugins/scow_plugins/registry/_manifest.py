"""From a name to one image's manifest: index, choice of platform, digests (distribution-spec, "Pulling manifests").

Nothing is believed that wasn't computed: a body's digest is compared with the one that was asked for, or with the one
that the registry claims for a tag.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from scow.api import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Corrupt,
    Descriptor,
    Digest,
    Document,
    Index,
    Invalid,
    Manifest,
    Named,
    Platform,
    Resolved,
    Source,
    Unsupported,
    choose,
    parse_document,
)

from ._endpoints import Endpoint
from ._failures import Failure, Verdict, from_no_answer
from ._http import NoAnswer
from ._session import Session

#: distribution's own limit.
MANIFEST_MAX: Final = 4 * 1024 * 1024
#: Indexes within indexes are legal; nobody nests deeper.
_DEPTH_MAX: Final = 4
_ACCEPT: Final = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))


@dataclass(frozen=True, slots=True)
class _Found:
    document: Document
    parsed: Manifest | Index


async def resolve_image(session: Session, endpoint: Endpoint, name: Named, platform: Platform) -> Resolved:
    """The manifest that `name` means on `platform`, as this endpoint has it. Raises Failure, Unsupported, Corrupt."""
    found = await _get(session, endpoint, name, name.digest)
    indexes: list[Document] = []
    while isinstance(found.parsed, Index):
        if len(indexes) == _DEPTH_MAX:
            raise Unsupported(f"image {name.familiar} has more than {_DEPTH_MAX} indexes within each other")
        indexes.append(found.document)
        chosen = _choose(name, found.parsed, platform)
        found = await _child(session, endpoint, name, chosen)
    return Resolved(name, found.document, Source("registry", name.repository), tuple(indexes))


def _choose(name: Named, index: Index, platform: Platform) -> Descriptor:
    entries = index.runnable()
    chosen = choose(((entry.platform, entry) for entry in entries), platform)
    if chosen is None:
        offered = sorted({str(entry.platform) for entry in entries if entry.platform})
        raise Unsupported(
            f"image {name.familiar} is not there for {platform}",
            hint=f"it is there for {', '.join(offered)}" if offered else "its index holds no image at all",
        )
    return chosen


async def _child(session: Session, endpoint: Endpoint, name: Named, entry: Descriptor) -> _Found:
    if entry.data is not None:
        return _found(name, entry.data, entry.digest, entry.media_type)
    try:
        found = await _get(session, endpoint, name, entry.digest, entry.media_type)
    except Failure as failure:
        if failure.verdict is Verdict.MISSING:
            failure.words = f"its index lists {entry.digest}, which isn't there"
            failure.hint = f"the image's index lists {entry.digest}, which the registry doesn't have"
        raise
    if len(found.document.data) != entry.size:
        raise Corrupt(f"image {name.familiar}: {endpoint} sends manifest {entry.digest} with another size")
    return found


async def _get(session: Session, endpoint: Endpoint, name: Named, digest: Digest | None, expected: str = "") -> _Found:
    path = f"/v2/{name.path}/manifests/{digest or name.tag}"
    async with session.get(endpoint, path, f"repository:{name.path}:pull", [("Accept", _ACCEPT)]) as answer:
        if answer.status != 200:
            raise Failure(Verdict.AWAY, f"status {answer.status}")
        try:
            body = await answer.read(MANIFEST_MAX)
        except NoAnswer as error:
            raise from_no_answer(error) from None
        sent = (answer.header("content-type") or "").partition(";")[0].strip().lower()
        claimed = answer.header("docker-content-digest")
    if len(body) > MANIFEST_MAX:
        raise Corrupt(f"image {name.familiar}: {endpoint} sends a manifest larger than {MANIFEST_MAX} bytes")
    return _found(name, body, _checked(name, endpoint, body, digest, claimed), expected, sent)


def _checked(name: Named, endpoint: Endpoint, body: bytes, asked: Digest | None, claimed: str | None) -> Digest:
    """The body's digest, which must be the one asked for, or the one claimed. Raises Corrupt."""
    wanted = asked
    if wanted is None and claimed:
        # A claim in an algorithm that we don't know proves nothing, for or against.
        with suppress(Invalid):
            wanted = Digest.parse(claimed.strip())
    actual = Digest.of(body, wanted.algorithm if wanted else "sha256")
    if wanted is not None and actual != wanted:
        raise Corrupt(
            f"image {name.familiar}: {endpoint} sends a manifest with the digest {actual} as {wanted}",
            hint="the registry or something on the way to it is broken, or lies",
        )
    return actual


def _found(name: Named, body: bytes, digest: Digest, expected: str, sent: str = "") -> _Found:
    try:
        parsed = parse_document(body, expected or (sent if sent in MANIFESTS | INDEXES else ""))
    except (Corrupt, Unsupported) as error:
        raise type(error)(f"image {name.familiar}: {error.message}", hint=error.hint) from None
    kinds, default = (INDEXES, OCI_INDEX) if isinstance(parsed, Index) else (MANIFESTS, OCI_MANIFEST)
    others = MANIFESTS if isinstance(parsed, Index) else INDEXES
    # One document that reads as an image here and as an index there is an attack (CVE-2021-41190).
    if sent in others or expected in others or parsed.media_type in others:
        raise Corrupt(f"image {name.familiar}: manifest {digest} is not of the type it is announced as")
    media_type = parsed.media_type if parsed.media_type in kinds else default
    return _Found(Document(Descriptor(media_type, digest, len(body)), body), parsed)
