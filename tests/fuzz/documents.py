"""Documents: manifests, indexes, configurations, a builder's cache, Docker's configuration file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final

import msgspec
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Finding, Target

from scow.api import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Corrupt,
    Descriptor,
    Digest,
    Document,
    Index,
    Platform,
    choose,
    parse_config,
    parse_document,
)
from scow.engine.building import Layer
from scow.engine.ocinames import all_oci
from scow_plugins.builder._cachedoc import NAME as CACHE
from scow_plugins.builder._cachedoc import read as read_cache
from scow_plugins.registry._credentials import read_config

_HEX: Final = "sha256:" + "0123456789abcdef" * 4
_CONFIG: Final = {"mediaType": OCI_CONFIG, "digest": _HEX, "size": 2}
_INLINE: Final = {
    "mediaType": OCI_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2, "data": base64.b64encode(b"{}").decode(),
}  # fmt: skip
_LAYER: Final = {"mediaType": f"{OCI_LAYER}+gzip", "digest": _HEX, "size": 5, "urls": ["https://example.org/x"]}
_CHILD: Final = {
    "mediaType": OCI_MANIFEST,
    "digest": _HEX,
    "size": 7,
    "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"},
    "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
}
_IMAGE: Final[dict[str, Any]] = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2020-01-01T00:00:00Z",
    "author": None,
    "rootfs": {"type": "layers", "diff_ids": [_HEX]},
    "history": [{"created": "2020-01-01T00:00:00.5Z", "created_by": "x", "empty_layer": True}],
    "config": {
        "User": "1:2", "Env": ["PATH=/bin", "A"], "Cmd": ["sh"], "Entrypoint": "x", "WorkingDir": "/w",
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/v": {}}, "Labels": {"a": "b"},
        "StopSignal": "SIGTERM", "Healthcheck": {"Test": ["CMD", "x"], "Interval": 1000000000}, "OnBuild": ["RUN x"],
    },
}  # fmt: skip


def _json(*documents: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(document).encode() for document in documents)


MANIFESTS: Final = _json(
    {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _CONFIG, "layers": [_LAYER], "annotations": {"a": "b"}},
    {"schemaVersion": 2, "config": _INLINE, "layers": []},
    {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_CHILD, _CHILD]},
    {"schemaVersion": 2, "manifests": [], "subject": None},
    {"schemaVersion": 1, "name": "old"},
)


def manifest(data: bytes, place: Path) -> str:
    """As it comes from a registry, a directory, the store."""
    kinds = set()
    for media_type in ("", OCI_MANIFEST, DOCKER_MANIFEST):
        parsed = parse_document(data, media_type)
        if isinstance(parsed, Index):
            choose(((entry.platform, entry) for entry in parsed.runnable()), Platform("linux", "arm64"))
        kinds.add(type(parsed).__name__)
        (sent,) = all_oci([Document(Descriptor(media_type, Digest.of(data), len(data)), data)], lambda digest: "gzip")
        if type(parse_document(sent.data, sent.descriptor.media_type)) is not type(parsed):
            raise Finding("under OCI's names it is something else")
    return str(kinds)


def config(data: bytes, place: Path) -> str:
    """Of an image, with its chain IDs."""
    parsed = parse_config(data)
    parsed.platform.rank(Platform("linux", "amd64"))
    return f"{len(parsed.chain)} {bool(parsed.env)} {bool(parsed.healthcheck)}"


def cache(data: bytes, place: Path) -> str:
    """What a builder wrote into an image's configuration, for another builder."""
    layers = [Layer(Descriptor(f"{OCI_LAYER}+gzip", Digest.parse(_HEX), 5), Digest.parse(_HEX))]
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Corrupt("the configuration is not valid") from None
    known = read_cache(document, layers, "an image")
    return f"{len(known.records)} {len(known.memos)}"


def login(data: bytes, place: Path) -> str:
    """Docker's configuration file, which other programs write."""
    (place / "config.json").write_bytes(data)
    found = read_config(place / "config.json")
    for name in ("docker.io", "example.org"):
        found.helper(name)
        found.inline(name)
    return f"{bool(found.auths)}"


_CACHE: Final = {
    CACHE: {"version": 1, "records": [["a" * 64, 0, 1.5]], "memos": [["b" * 64, "c" * 64], ["d" * 64, "yes"]]},
}
_DOCKER: Final = {
    "auths": {
        "https://index.docker.io/v1/": {"auth": base64.b64encode(b"me:secret").decode()},
        "example.org": {"username": "me", "password": "x", "identitytoken": "t"},
    },
    "credHelpers": {"example.com": "pass"},
    "credsStore": "",
}
_WORDS: Final = (b"sha256:", _HEX.encode(), OCI_MANIFEST.encode(), OCI_INDEX.encode(), OCI_LAYER.encode(), b"sha512:")

TARGETS: Final = (
    Target("manifest", MANIFESTS, Mutator.json, manifest, (*_WORDS, b"manifests", b"layers", b"config", b"mediaType")),
    Target("config", _json(_IMAGE, {"rootfs": {}}), Mutator.json, config, (*_WORDS, b"linux", b"windows", b"v7")),
    Target("cache", _json(_CACHE), Mutator.json, cache, _WORDS),
    Target("login", _json(_DOCKER), Mutator.json, login, (b"https://", b"docker.io", b"Og==")),
)
