"""Docker's documents under OCI's names, for places called OCI, where skopeo and umoci refuse other media types.

Docker's image manifest v2.2 and OCI's image spec differ in media types only (manifest.md, "Compatibility matrix"), so
nothing else changes; but a document with other bytes has another digest, and so has the index that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import msgspec

from scow.model.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    OCTETS,
    Descriptor,
    Document,
)
from scow.model.digest import Digest

Packing: TypeAlias = Callable[[Digest], str]
_FOREIGN: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_RESERVED: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_NAMES: Final = {
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_LIST: OCI_INDEX,
    DOCKER_CONFIG: OCI_CONFIG,
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER + ".gzip": OCI_LAYER + "+gzip",
    DOCKER_LAYER + ".zstd": OCI_LAYER + "+zstd",
    _FOREIGN: _RESERVED,
    _FOREIGN + ".gzip": _RESERVED + "+gzip",
}


def oci_name(media_type: str) -> str:
    """OCI's name for a media type of Docker's; others stay as they are."""
    return _NAMES.get(media_type, media_type)


def all_oci(documents: Sequence[Document], packing: Packing) -> list[Document]:
    """Manifests, and indexes behind what they name, under OCI's names. What has them already keeps its bytes.

    `packing` says of a layer without a name of its own how it is compressed (`none`, `gzip`, `zstd`).
    """
    known: dict[str, Descriptor] = {}
    return [_document(document, known, packing) for document in documents]


def _document(document: Document, known: dict[str, Descriptor], packing: Packing) -> Document:
    old = document.descriptor
    kind = oci_name(old.media_type)
    before = msgspec.json.decode(document.data, type=dict[str, Any])
    after = dict(before)
    if isinstance(name := before.get("mediaType"), str):
        after["mediaType"] = oci_name(name)
    for key in ("config", "layers", "manifests"):
        if (said := before.get(key)) is not None:
            after[key] = (
                [_said(each, known, packing) for each in said]
                if isinstance(said, list)
                else _said(said, known, packing)
            )
    data = document.data if after == before else msgspec.json.encode(after)
    known[str(old.digest)] = new = replace(old, media_type=kind, digest=Digest.of(data), size=len(data))
    return Document(new, data)


def _said(said: Mapping[str, Any], known: Mapping[str, Descriptor], packing: Packing) -> dict[str, Any]:
    """A descriptor within a document."""
    kind = said["mediaType"]
    if kind == OCTETS:
        packed = packing(Digest.parse(said["digest"]))
        kind = OCI_LAYER if packed == "none" else f"{OCI_LAYER}+{packed}"
    made = {**said, "mediaType": oci_name(kind)}
    if child := known.get(said["digest"]):
        made |= {"digest": str(child.digest), "size": child.size}
    return made
