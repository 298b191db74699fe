"""Descriptors and media types (OCI image spec, descriptor.md and media-types.md; Docker image manifest v2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from scow.model.digest import Digest
from scow.model.platform import Platform

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
#: What some senders call a layer, as every blob comes under that name.
OCTETS: Final = "application/octet-stream"
#: The only layer of a `host:` image: this machine's root directory. No blob lies behind it.
HOST_LAYER: Final = "application/vnd.scow.host.rootfs.v1"

MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIGS: Final = frozenset({OCI_CONFIG, DOCKER_CONFIG})

#: Layer media types that are tar archives, with their compression. Non-distributable ones are deprecated but legal.
TAR_LAYERS: Final[Mapping[str, str]] = {
    OCI_LAYER: "none",
    OCI_LAYER + "+gzip": "gzip",
    OCI_LAYER + "+zstd": "zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "none",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": "zstd",
    DOCKER_LAYER: "none",
    DOCKER_LAYER + ".gzip": "gzip",
    DOCKER_LAYER + ".zstd": "zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": "none",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": "gzip",
    OCTETS: "any",
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a blob is and how to check it: media type, digest, size in bytes."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    #: The blob itself, when the manifest carries it inline.
    data: bytes | None = None
    artifact_type: str | None = None
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or an index together with its exact bytes, which are what its digest is of."""

    descriptor: Descriptor
    data: bytes
