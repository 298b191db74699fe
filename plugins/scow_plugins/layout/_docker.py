"""Docker's archive: `manifest.json`, configurations and layers under any names (`docker save`).

Archives of current dockers, and ours, are an OCI layout as well; then the manifest comes from there with its digest. Of
an older one a manifest is made: the layers as they lie there, the digest of a plain one being its diff ID.
"""

from __future__ import annotations

import hashlib
import posixpath
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from scow.api import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    Corrupt,
    Descriptor,
    Digest,
    Document,
    Invalid,
    Manifest,
    NotFound,
    Platform,
    ScowError,
    parse_config,
    parse_document,
    parse_named,
)
from scow.api.layers import sniff

from ._files import Files, Span, read, read_at
from ._layout import Chosen, blob_name, descend, entries_of
from ._place import Place

_LIST_MAX: Final = 16 * 1024 * 1024
_CONFIG_MAX: Final = 8 * 1024 * 1024
_PIECE: Final = 1024 * 1024


class Item(msgspec.Struct, rename="pascal"):
    """One image of manifest.json."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """A chosen image, and where its blobs lie."""

    chosen: Chosen
    blobs: dict[Digest, Span]


def items_of(files: Files, what: object) -> list[Item]:
    """The images of an archive. Raises Corrupt."""
    return files.once("items", lambda: _items(files, what))


def _items(files: Files, what: object) -> list[Item]:
    span = files.find("manifest.json")
    if span is None:
        raise Corrupt(f"{what} is no archive of docker's: it has no manifest.json")
    try:
        return msgspec.json.decode(read(span, _LIST_MAX), type=list[Item])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{what}: manifest.json is not valid: {error}") from None


def select(items: list[Item], place: Place) -> Item:
    """The image that a place means. Raises NotFound."""
    if place.position is not None:
        found = items[place.position : place.position + 1]
    elif place.name is not None:
        wanted = _full(place.name)
        found = [item for item in items if any(_full(tag) == wanted for tag in item.repo_tags or ())]
    else:
        found = items
    if len(found) == 1:
        return found[0]
    names = [tag for item in items for tag in item.repo_tags or ()]
    hint = f"it holds {', '.join(names[:20])}" if names else f"it holds {len(items)} images without names"
    raise NotFound(f"{place} holds {len(found) or 'no such'} image{'s' if len(found) > 1 else ''}", hint=hint)


def _full(name: str) -> str:
    try:
        return str(parse_named(name))
    except Invalid:
        return name


def image_of(files: Files, item: Item, place: Place, platform: Platform) -> Image:
    """An item's manifest and blobs; blocks while compressed layers are hashed. Raises Corrupt, NotFound."""
    config_span = _member(files, item.config, place)
    data = read(config_span, _CONFIG_MAX)
    config = Descriptor(DOCKER_CONFIG, Digest.of(data), len(data))
    known = _from_layout(files, config.digest, place, platform)
    if known is not None:
        return known
    diff_ids = parse_config(data).diff_ids
    if len(diff_ids) != len(item.layers):
        raise Corrupt(f"{place}: an image has {len(item.layers)} layers, and diff IDs for {len(diff_ids)}")
    blobs, layers = {config.digest: config_span}, []
    for name, diff_id in zip(item.layers, diff_ids, strict=True):
        span = _member(files, name, place)
        layers.append(files.once((span.offset, diff_id), partial(_layer, span, diff_id)))
        blobs[layers[-1].digest] = span
    return Image(_made(config, layers), blobs)


def _member(files: Files, name: str, place: Place) -> Span:
    span = files.find(posixpath.normpath(name.lstrip("/")))
    if span is None:
        raise Corrupt(f"{place}: its manifest.json lists {name!r}, which isn't there")
    return span


def _layer(span: Span, diff_id: Digest) -> Descriptor:
    kind = sniff(read_at(span, 0, 4))
    if kind == "none":
        return Descriptor(DOCKER_LAYER, diff_id, span.size)
    hasher, position = hashlib.sha256(), 0
    while piece := read_at(span, position, _PIECE):
        hasher.update(piece)
        position += len(piece)
    return Descriptor(f"{DOCKER_LAYER}.{kind}", Digest("sha256", hasher.hexdigest()), span.size)


def _made(config: Descriptor, layers: list[Descriptor]) -> Chosen:
    def entry(descriptor: Descriptor) -> dict[str, object]:
        return {"mediaType": descriptor.media_type, "size": descriptor.size, "digest": str(descriptor.digest)}

    document = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": entry(config),
        "layers": [entry(layer) for layer in layers],
    }
    data = msgspec.json.encode(document)
    parsed = parse_document(data, DOCKER_MANIFEST)
    assert isinstance(parsed, Manifest)
    return Chosen(Document(Descriptor(DOCKER_MANIFEST, Digest.of(data), len(data)), data), parsed, ())


def _from_layout(files: Files, config: Digest, place: Place, platform: Platform) -> Image | None:
    """The manifest of the layout in the same archive that has this configuration, if all its blobs are there."""
    if files.find("index.json") is None:
        return None
    for entry in files.once(("configs", platform), lambda: _by_config(files, place, platform)).get(config, ()):
        chosen = descend(files, entry, place, platform)
        spans = {
            blob.digest: files.find(blob_name(blob.digest)) for blob in (chosen.parsed.config, *chosen.parsed.layers)
        }
        blobs = {digest: span for digest, span in spans.items() if span is not None}
        if len(blobs) == len(spans):
            return Image(chosen, blobs)
    return None


def _by_config(files: Files, place: Place, platform: Platform) -> dict[Digest, list[Descriptor]]:
    """The layout's entries by the configuration of the image for a platform that each leads to."""
    found: dict[Digest, list[Descriptor]] = {}
    for entry in entries_of(files, place):
        # An index with platforms that aren't there, an attestation: not what anybody looks for.
        with suppress(ScowError):
            found.setdefault(descend(files, entry, place, platform).parsed.config.digest, []).append(entry)
    return found
