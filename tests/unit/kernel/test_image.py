"""Manifests, indexes and configurations that strangers wrote: only ScowErrors come out."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.errors import Corrupt, ScowError, Unsupported
from scow.model.descriptor import DOCKER_CONFIG, DOCKER_LIST, OCI_CONFIG, OCI_EMPTY, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from scow.model.digest import Digest, chain_ids
from scow.model.image import LAYERS_MAX, MANIFEST_MAX, ImageConfig, Index, Manifest, parse_config, parse_document
from scow.model.platform import Platform

HEX = "a" * 64
DIGEST = f"sha256:{HEX}"


def descriptor(media_type: str = OCI_LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 3, **more}


def manifest(**more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": descriptor(OCI_CONFIG), "layers": [descriptor()], **more}


def parse(document: object, media_type: str = "") -> Manifest | Index:
    return parse_document(json.dumps(document).encode(), media_type)


def test_manifest() -> None:
    parsed = parse(manifest(annotations={"a": "b"}), OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    assert (parsed.media_type, parsed.size, parsed.annotations) == (OCI_MANIFEST, 3, {"a": "b"})
    assert parsed.layers[0].digest == Digest("sha256", HEX)


def test_index_leaves_attestations_out() -> None:
    entries = [
        descriptor(OCI_MANIFEST, platform={"os": "linux", "architecture": "amd64"}),
        descriptor(OCI_MANIFEST, platform={"os": "unknown", "architecture": "unknown"}),
        descriptor(OCI_MANIFEST, annotations={"vnd.docker.reference.type": "attestation-manifest"}),
        descriptor("application/x-something"),
    ]
    parsed = parse({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}, OCI_INDEX)
    assert isinstance(parsed, Index)
    assert parsed.media_type == DOCKER_LIST
    assert [entry.platform for entry in parsed.runnable()] == [Platform("linux", "amd64")]


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 1, "fsLayers": []},
        manifest(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"),
        manifest(artifactType="application/spdx+json"),
        manifest(config=descriptor(OCI_EMPTY)),
        manifest(config=descriptor("application/vnd.cncf.helm.config.v1+json")),
        manifest(layers=[descriptor("application/vnd.oci.image.layer.v1.tar+lzma")]),
    ],
)
def test_what_is_no_image(document: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        parse(document)


@pytest.mark.parametrize(
    "document",
    [
        {}, [], None, 1, "x", {"config": {}}, manifest(layers=None), manifest(layers=[None]), manifest(config=None),
        manifest(layers=[descriptor(size=-1)]), manifest(layers=[descriptor(size="3")]),
        manifest(layers=[descriptor(digest="md5:x")]), manifest(layers=[descriptor(digest="")]),
        manifest(layers=[descriptor(data="!")]), manifest(layers=[descriptor(data="é")]),
        manifest(layers=[descriptor(data="YWJj")]), manifest(layers=[descriptor(data="YWJjZA==")]),
        manifest(layers=[descriptor(digest="x:y", data="YWJj")]), {"manifests": [descriptor(platform=1)]},
        manifest(annotations={"a": 1}), {"manifests": {}},
    ],
)  # fmt: skip
def test_what_is_no_manifest(document: object) -> None:
    with pytest.raises(Corrupt):
        parse(document)


def test_both_index_and_manifest_is_refused() -> None:
    """A document that two readers read differently (OCI distribution advisory GHSA-mc8v-mgrf-8f4m)."""
    with pytest.raises(Corrupt):
        parse(manifest(manifests=[descriptor(OCI_MANIFEST)]))
    with pytest.raises(Corrupt):
        parse({"layers": [], "manifests": [descriptor(OCI_MANIFEST)]})


def test_inline_data() -> None:
    data = b"abc"
    entry = {"mediaType": OCI_CONFIG, "digest": str(Digest.of(data)), "size": 3}
    parsed = parse(manifest(config={**entry, "data": base64.b64encode(data).decode()}))
    assert isinstance(parsed, Manifest)
    assert parsed.config.data == data


def test_size_limit() -> None:
    with pytest.raises(Corrupt, match="larger"):
        parse_document(b" " * (MANIFEST_MAX + 1), "")


def test_deep_nesting() -> None:
    with pytest.raises(Corrupt):
        parse_document(b'{"manifests":' + b"[" * 100_000, "")
    with pytest.raises(Corrupt):
        parse_config(b'{"rootfs":{},"x":' + b"[" * 100_000)


def test_config() -> None:
    config = parse_config(
        json.dumps(
            {
                "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z",
                "config": {
                    "User": "www", "Env": ["A=1"], "Entrypoint": ["/e"], "Cmd": "old", "WorkingDir": "/w",
                    "Labels": {"l": "v"},
                    "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "StopSignal": "SIGQUIT",
                    "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5},
                },
                "rootfs": {"type": "layers", "diff_ids": [DIGEST, str(Digest.of(b""))]},
                "history": [{"created_by": "x"}, {"empty_layer": True}],
            }
        ).encode()
    )  # fmt: skip
    assert (config.entrypoint, config.cmd, config.env, config.user) == (("/e",), ("old",), ("A=1",), "www")
    assert (config.exposed_ports, config.volumes, config.labels) == (("80/tcp",), ("/v",), (("l", "v"),))
    assert config.healthcheck is not None
    assert config.healthcheck.interval == 5
    assert [line.empty_layer for line in config.history] == [False, True]
    assert config.chain == chain_ids(config.diff_ids)
    assert config.platform == Platform("linux", "amd64")


def test_config_with_nulls_everywhere() -> None:
    config = parse_config(
        b'{"rootfs":{"diff_ids":null},"config":{"Env":null,"Cmd":null,"Labels":null,"Entrypoint":null,"Volumes":null,'
        b'"ExposedPorts":null,"Healthcheck":null,"OnBuild":null},"history":null,"author":null,"created":null}'
    )
    assert config == ImageConfig(Platform("linux", ""), ())


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"\xff", b'{"rootfs":{"diff_ids":["x"]}}', b'{"rootfs":{},"config":{"Env":"A"}}']
)
def test_bad_configs(data: bytes) -> None:
    with pytest.raises(Corrupt):
        parse_config(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(["config", "layers", "manifests", "mediaType", "schemaVersion", "annotations", "artifactType"])
_descriptor = st.dictionaries(
    st.sampled_from(["mediaType", "digest", "size", "data", "urls", "platform", "annotations"]), _json, max_size=7
)
_types = st.sampled_from([OCI_CONFIG, DOCKER_CONFIG, OCI_LAYER, OCI_MANIFEST, OCI_EMPTY, "x"])
_plausible = st.builds(
    lambda base, media_type, size, data: {"mediaType": media_type, "digest": DIGEST, "size": size, "data": data} | base,
    _descriptor, _types, st.integers(), st.none() | st.text(max_size=4),
)  # fmt: skip
_documents = st.dictionaries(_keys, _json | _plausible | st.lists(_plausible, max_size=2), max_size=5)
_config_keys = st.sampled_from(["rootfs", "config", "history", "os", "architecture", "created", "author", "variant"])
_run = st.dictionaries(st.sampled_from(["Env", "Cmd", "Entrypoint", "Labels", "ExposedPorts", "Healthcheck"]), _json)


def only_scow_errors(call: Any, *arguments: object) -> None:
    try:
        call(*arguments)
    except ScowError:
        pass


@given(_documents | _json, st.text(max_size=4) | _types)
def test_any_json_as_document(document: object, media_type: str) -> None:
    only_scow_errors(parse_document, json.dumps(document).encode(), media_type)


@given(st.dictionaries(_config_keys, _json | _run) | _json)
def test_any_json_as_config(document: object) -> None:
    only_scow_errors(parse_config, json.dumps(document).encode())


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    only_scow_errors(parse_document, data, "")
    only_scow_errors(parse_config, data)


@given(st.data())
def test_any_cut_of_a_good_document(data: st.DataObject) -> None:
    whole = json.dumps(manifest()).encode()
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    only_scow_errors(parse_document, whole[:start] + whole[end:], "")


def test_a_bound_on_layers_and_on_history() -> None:
    """A small layer may be listed as often as one likes."""
    parse(manifest(layers=[descriptor()] * LAYERS_MAX))
    with pytest.raises(Unsupported, match=f"has {LAYERS_MAX + 1} layers"):
        parse(manifest(layers=[descriptor()] * (LAYERS_MAX + 1)))
    with pytest.raises(Unsupported, match="has 600 layers"):
        parse_config(json.dumps({"rootfs": {"diff_ids": [DIGEST] * 600}}).encode())
    with pytest.raises(Unsupported, match="history has 10001 lines"):
        parse_config(json.dumps({"rootfs": {"diff_ids": [DIGEST]}, "history": [{}] * 10001}).encode())
