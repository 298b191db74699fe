"""An OCI image layout: `index.json`, and blobs by digest (OCI image spec, image-layout.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from scow.api import (
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
    Corrupt,
    Descriptor,
    Digest,
    Document,
    Index,
    Manifest,
    NotFound,
    Platform,
    Unsupported,
    choose,
    parse_document,
)

from ._files import Files, read
from ._place import Place

REF_NAME: Final = "org.opencontainers.image.ref.name"
#: containerd and docker keep the whole name there, and only the tag in the other one.
IMAGE_NAME: Final = "io.containerd.image.name"
DOCUMENT_MAX: Final = 4 * 1024 * 1024
_DEPTH_MAX: Final = 4


@dataclass(frozen=True, slots=True)
class Chosen:
    """A manifest, the indexes above it, and the names that the layout gives to its entry."""

    manifest: Document
    parsed: Manifest
    indexes: tuple[Document, ...]


def blob_name(digest: Digest) -> str:
    """Where a blob lies."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def entries_of(files: Files, what: object) -> tuple[Descriptor, ...]:
    """What index.json lists. Raises Corrupt."""
    return files.once("entries", lambda: _entries(files, what))


def _entries(files: Files, what: object) -> tuple[Descriptor, ...]:
    span = files.find("index.json")
    if span is None:
        raise Corrupt(f"{what} is no OCI image layout: it has no index.json")
    parsed = parse_document(read(span, DOCUMENT_MAX), OCI_INDEX)
    if not isinstance(parsed, Index):
        raise Corrupt(f"{what}: its index.json is no index")
    return parsed.entries


def names_of(entry: Descriptor) -> tuple[str, ...]:
    """All names of an entry, the longest first."""
    found = (entry.annotations.get(IMAGE_NAME), entry.annotations.get(REF_NAME))
    return tuple(dict.fromkeys(name for name in found if name))


def select(entries: tuple[Descriptor, ...], place: Place, platform: Platform) -> Descriptor:
    """The entry that a place means. Raises NotFound, Unsupported."""
    if place.position is not None:
        found = entries[place.position : place.position + 1]
    elif place.name is not None:
        found = tuple(entry for entry in entries if place.name in names_of(entry))
    else:
        found = tuple(entry for entry in entries if _is_latest(entry)) or entries
    if not found:
        raise NotFound(f"{place} holds no such image", hint=_offered(entries))
    if len(found) == 1:
        return found[0]
    if len({names_of(entry) for entry in found}) > 1:
        raise NotFound(f"{place} holds {len(found)} images", hint=_offered(entries))
    return _for_platform(tuple(found), place, platform)


def _is_latest(entry: Descriptor) -> bool:
    return any(name == "latest" or name.endswith(":latest") for name in names_of(entry))


def _offered(entries: tuple[Descriptor, ...]) -> str:
    names = [name for entry in entries for name in names_of(entry)[:1]]
    return f"it holds {', '.join(names[:20])}" if names else f"it holds {len(entries)} images without names"


def _for_platform(entries: tuple[Descriptor, ...], place: Place, platform: Platform) -> Descriptor:
    chosen = choose(((entry.platform, entry) for entry in entries), platform)
    if chosen is None:
        offered = sorted({str(entry.platform) for entry in entries if entry.platform})
        raise Unsupported(
            f"{place} is not there for {platform}",
            hint=f"it is there for {', '.join(offered)}" if offered else "its index holds no image at all",
        )
    return chosen


def descend(files: Files, entry: Descriptor, place: Place, platform: Platform) -> Chosen:
    """From an entry to the platform's manifest. Raises NotFound, Unsupported, Corrupt."""
    indexes: list[Document] = []
    while True:
        document, parsed = _document(files, entry, place)
        if isinstance(parsed, Manifest):
            return Chosen(document, parsed, tuple(indexes))
        if len(indexes) == _DEPTH_MAX:
            raise Unsupported(f"{place} has more than {_DEPTH_MAX} indexes within each other")
        indexes.append(document)
        entry = _for_platform(parsed.runnable(), place, platform)


def _document(files: Files, entry: Descriptor, place: Place) -> tuple[Document, Manifest | Index]:
    span = files.find(blob_name(entry.digest))
    if span is None:
        raise NotFound(f"{place}: its index lists {entry.digest}, which isn't there")
    data = read(span, DOCUMENT_MAX)
    if Digest.of(data, entry.digest.algorithm) != entry.digest:
        raise Corrupt(f"{place}: blob {entry.digest} is damaged")
    kind = entry.media_type if entry.media_type in MANIFESTS | INDEXES else ""
    parsed: Any = parse_document(data, kind)
    kinds, usual = (INDEXES, OCI_INDEX) if isinstance(parsed, Index) else (MANIFESTS, OCI_MANIFEST)
    if kind and kind not in kinds:
        raise Corrupt(f"{place}: {entry.digest} is not of the type it is announced as")
    media_type = parsed.media_type if parsed.media_type in kinds else usual
    return Document(Descriptor(media_type, entry.digest, len(data)), data), parsed
