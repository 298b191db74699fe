"""Manifests, indexes and image configurations, read from JSON that strangers wrote.

OCI image spec (manifest.md, image-index.md, config.md) and Docker's image manifest v2.2, which differ in media
types only. Unknown fields are ignored, as the specs demand; wrong types are Corrupt.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from scow.errors import Corrupt, Invalid, ScowError, Unsupported
from scow.model.descriptor import (
    CONFIGS,
    HOST_LAYER,
    INDEXES,
    MANIFESTS,
    OCI_EMPTY,
    TAR_LAYERS,
    Descriptor,
)
from scow.model.digest import Digest, chain_ids
from scow.model.platform import Platform

#: The largest manifest that is read (distribution's own limit, 4 MiB).
MANIFEST_MAX: Final = 4 * 1024 * 1024
#: The largest image configuration that is read.
CONFIG_MAX: Final = 8 * 1024 * 1024
#: What overlayfs stacks at most (OVL_MAX_STACK, fs/overlayfs/params.h); docker's own bound is 127 layers.
LAYERS_MAX: Final = 500
#: Lines of a history, most of which make no layer: far more than any Dockerfile has.
HISTORY_MAX: Final = 10_000
_DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+"


class _PlatformJSON(msgspec.Struct):
    os: str = ""
    architecture: str = ""
    variant: str = ""


class _DescriptorJSON(msgspec.Struct, rename="camel"):
    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    data: str | None = None
    artifact_type: str | None = None
    platform: _PlatformJSON | None = None


class _ManifestJSON(msgspec.Struct, rename="camel"):
    config: _DescriptorJSON
    layers: list[_DescriptorJSON]
    schema_version: int = 2
    media_type: str | None = None
    artifact_type: str | None = None
    annotations: dict[str, str] | None = None


class _IndexJSON(msgspec.Struct, rename="camel"):
    manifests: list[_DescriptorJSON]
    schema_version: int = 2
    media_type: str | None = None
    annotations: dict[str, str] | None = None


class _HealthJSON(msgspec.Struct, rename="pascal"):
    test: list[str] | None = None
    interval: int | None = None
    timeout: int | None = None
    retries: int | None = None
    start_period: int | None = None
    start_interval: int | None = None


class _RunJSON(msgspec.Struct, rename="pascal"):
    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | str | None = None
    cmd: list[str] | str | None = None
    working_dir: str | None = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    healthcheck: _HealthJSON | None = None
    shell: list[str] | None = None
    on_build: list[str] | None = None


class _RootfsJSON(msgspec.Struct):
    diff_ids: list[str] | None = None
    type: str = "layers"


class _HistoryJSON(msgspec.Struct):
    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class _ConfigJSON(msgspec.Struct):
    rootfs: _RootfsJSON
    architecture: str = ""
    os: str = ""
    variant: str | None = None
    created: str | None = None
    author: str | None = None
    config: _RunJSON | None = None
    history: list[_HistoryJSON] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: a configuration and layers, lowest first."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes of all layers as they are transferred."""
        return sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """Several manifests under one name; each entry's descriptor carries its platform."""

    media_type: str
    entries: tuple[Descriptor, ...]
    annotations: Mapping[str, str]

    def runnable(self) -> tuple[Descriptor, ...]:
        """The entries that are images: attestations and entries of unknown types are left out, not refused."""
        return tuple(
            entry
            for entry in self.entries
            if entry.media_type in MANIFESTS | INDEXES
            and entry.annotations.get("vnd.docker.reference.type") != "attestation-manifest"
            and not (entry.platform and entry.platform.os == "unknown")
        )


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """An image's health check; durations in nanoseconds, as Docker stores them, None where it says nothing."""

    test: tuple[str, ...]
    interval: int | None = None
    timeout: int | None = None
    retries: int | None = None
    start_period: int | None = None
    start_interval: int | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One line of `history`; `empty_layer` is true where the step made no layer."""

    created: str | None
    created_by: str
    author: str
    comment: str
    empty_layer: bool


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says about itself and about the containers made from it."""

    platform: Platform
    diff_ids: tuple[Digest, ...]
    created: str | None = None
    author: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()
    history: tuple[HistoryEntry, ...] = ()

    @property
    def chain(self) -> tuple[Digest, ...]:
        """The chain ID of each layer, lowest first."""
        return chain_ids(self.diff_ids)


def parse_document(data: bytes, media_type: str) -> Manifest | Index:
    """Read a manifest or an index.

    `media_type` is what the sender calls it; empty when unknown. Raises Unsupported for what is no image
    (artifacts, schema 1), Corrupt for what is no manifest at all.
    """
    if len(data) > MANIFEST_MAX:
        raise Corrupt(f"manifest is larger than {MANIFEST_MAX} bytes")
    shape = _decode(data, dict, "manifest")
    named = shape.get("mediaType")
    media_type = named if isinstance(named, str) and named else media_type
    if shape.get("schemaVersion") == 1 or media_type.startswith(_DOCKER_SCHEMA1):
        raise Unsupported(
            "the image has a manifest of Docker's schema 1, which nothing writes any more",
            hint="push it again with a current docker or with `skopeo copy --format v2s2`",
        )
    if "manifests" in shape and ("layers" in shape or "config" in shape):
        raise Corrupt("the document is an index and a manifest at once, which different readers read differently")
    if "manifests" in shape:
        index = _decode(data, _IndexJSON, "image index")
        entries = tuple(_descriptor(entry) for entry in index.manifests)
        return Index(media_type, entries, index.annotations or {})
    manifest = _decode(data, _ManifestJSON, "image manifest")
    return _manifest(manifest, media_type)


def check_layers(count: int) -> None:
    """Raises Unsupported for more layers than can be mounted: better before they are fetched, unpacked or made."""
    if count > LAYERS_MAX:
        raise Unsupported(
            f"the image has {count} layers, more than the {LAYERS_MAX} that can be mounted",
            hint="flatten it: `export` a container made from it with another engine, then `scow import`",
        )


def _manifest(parsed: _ManifestJSON, media_type: str) -> Manifest:
    config = _descriptor(parsed.config)
    artifact = parsed.artifact_type or (None if config.media_type in CONFIGS else config.media_type)
    if artifact or config.media_type == OCI_EMPTY:
        raise Unsupported(f"this is an artifact of type {artifact or config.media_type}, not an image")
    check_layers(len(parsed.layers))
    layers = tuple(_descriptor(layer) for layer in parsed.layers)
    for layer in layers:
        if layer.media_type not in TAR_LAYERS and layer.media_type != HOST_LAYER:
            raise Unsupported(f"layer {layer.digest} has the media type {layer.media_type}, which scow can't unpack")
    return Manifest(media_type, config, layers, parsed.annotations or {})


def parse_config(data: bytes) -> ImageConfig:
    """Read an image configuration. Raises Corrupt; Unsupported for more layers than can be mounted."""
    if len(data) > CONFIG_MAX:
        raise Corrupt(f"image configuration is larger than {CONFIG_MAX} bytes")
    parsed = _decode(data, _ConfigJSON, "image configuration")
    check_layers(len(parsed.rootfs.diff_ids or ()))
    if len(parsed.history or ()) > HISTORY_MAX:
        raise Unsupported(f"the image's history has {len(parsed.history or ())} lines, more than {HISTORY_MAX}")
    run = parsed.config or _RunJSON()
    return ImageConfig(
        platform=Platform(parsed.os or "linux", parsed.architecture, parsed.variant or ""),
        diff_ids=tuple(_digest(text) for text in parsed.rootfs.diff_ids or ()),
        created=parsed.created,
        author=parsed.author or "",
        user=run.user or "",
        env=tuple(run.env or ()),
        entrypoint=_words(run.entrypoint),
        cmd=_words(run.cmd),
        working_dir=run.working_dir or "",
        exposed_ports=tuple(run.exposed_ports or ()),
        volumes=tuple(run.volumes or ()),
        labels=tuple((run.labels or {}).items()),
        stop_signal=run.stop_signal or "",
        healthcheck=_health(run.healthcheck),
        shell=tuple(run.shell or ()),
        on_build=tuple(run.on_build or ()),
        history=tuple(_history(line) for line in parsed.history or ()),
    )


def _decode(data: bytes, shape: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{what} is not valid: {error}") from None


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except Invalid as error:
        raise Corrupt(error.message, hint=error.hint) from None


def _descriptor(parsed: _DescriptorJSON) -> Descriptor:
    if parsed.size < 0:
        raise Corrupt(f"descriptor of {parsed.digest} has the size {parsed.size}")
    platform = parsed.platform
    return Descriptor(
        media_type=parsed.media_type,
        digest=_digest(parsed.digest),
        size=parsed.size,
        urls=tuple(parsed.urls or ()),
        annotations=parsed.annotations or {},
        data=_inline(parsed),
        artifact_type=parsed.artifact_type,
        platform=Platform(platform.os, platform.architecture, platform.variant) if platform else None,
    )


def _inline(parsed: _DescriptorJSON) -> bytes | None:
    if parsed.data is None:
        return None
    try:
        data = base64.b64decode(parsed.data, validate=True)
    except (binascii.Error, ValueError):
        raise Corrupt(f"descriptor of {parsed.digest} carries data that is not base64") from None
    try:
        matches = len(data) == parsed.size and Digest.of(data, Digest.parse(parsed.digest).algorithm)
    except ScowError as error:
        raise Corrupt(error.message) from None
    if not matches or str(matches) != parsed.digest:
        raise Corrupt(f"descriptor of {parsed.digest} carries data of another digest or size")
    return data


def _words(value: list[str] | str | None) -> tuple[str, ...]:
    """Commands are lists; very old images have a string, which Docker reads as one word."""
    if value is None or value == "":
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _health(parsed: _HealthJSON | None) -> Healthcheck | None:
    if parsed is None or not parsed.test:
        return None
    return Healthcheck(
        tuple(parsed.test),
        parsed.interval,
        parsed.timeout,
        parsed.retries,
        parsed.start_period,
        parsed.start_interval,
    )


def _history(line: _HistoryJSON) -> HistoryEntry:
    return HistoryEntry(line.created, line.created_by or "", line.author or "", line.comment or "", line.empty_layer)
