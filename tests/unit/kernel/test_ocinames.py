"""Docker's documents under OCI's names: media types change and digests with them, and nothing else does."""

from __future__ import annotations

import json

import pytest

from scow.engine.ocinames import all_oci
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

BLOB = "sha256:" + "a" * 64


def document(kind: str, **content: object) -> Document:
    data = json.dumps({"schemaVersion": 2, "mediaType": kind, **content}).encode()
    return Document(Descriptor(kind, Digest.of(data), len(data)), data)


def said(kind: str, **more: object) -> dict[str, object]:
    return {"mediaType": kind, "digest": BLOB, "size": 3, **more}


@pytest.mark.parametrize(
    ("docker", "oci"),
    [
        (DOCKER_LAYER, OCI_LAYER),
        (DOCKER_LAYER + ".gzip", OCI_LAYER + "+gzip"),
        (DOCKER_LAYER + ".zstd", OCI_LAYER + "+zstd"),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
         "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        (OCI_LAYER, OCI_LAYER),
        (OCTETS, OCI_LAYER + "+zstd"),
        ("application/x-else", "application/x-else"),
    ],
)  # fmt: skip
def test_a_manifest(docker: str, oci: str) -> None:
    before = document(
        DOCKER_MANIFEST, config=said(DOCKER_CONFIG), layers=[said(docker, urls=["u"])], annotations={"a": "b"}
    )
    (after,) = all_oci([before], lambda digest: "zstd")
    content = json.loads(after.data)
    assert content == {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": said(OCI_CONFIG),
        "layers": [said(oci, urls=["u"])],
        "annotations": {"a": "b"},
    }
    assert after.descriptor == Descriptor(OCI_MANIFEST, Digest.of(after.data), len(after.data))


def test_an_index_names_what_its_manifests_became() -> None:
    child = document(DOCKER_MANIFEST, config=said(DOCKER_CONFIG), layers=[])
    entry = {"mediaType": DOCKER_MANIFEST, "digest": str(child.descriptor.digest), "size": child.descriptor.size}
    index = document(DOCKER_LIST, manifests=[{**entry, "platform": {"os": "linux", "architecture": "arm64"}}])
    first, last = all_oci([child, index], lambda digest: "none")
    (listed,) = json.loads(last.data)["manifests"]
    assert last.descriptor.media_type == json.loads(last.data)["mediaType"] == OCI_INDEX
    assert (listed["digest"], listed["size"]) == (str(first.descriptor.digest), first.descriptor.size)
    assert (listed["mediaType"], listed["platform"]["architecture"]) == (OCI_MANIFEST, "arm64")


def test_what_is_oci_keeps_its_bytes() -> None:
    same = document(OCI_MANIFEST, config=said(OCI_CONFIG), layers=[said(OCI_LAYER)])
    assert all_oci([same], lambda digest: "none") == [same]
