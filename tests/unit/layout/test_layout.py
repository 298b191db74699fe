"""Archives and directories as strangers write them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import trio

from scow.api import (
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Corrupt,
    Digest,
    Invalid,
    Located,
    NotFound,
    Platform,
    ScowError,
    Unsupported,
    parse_document,
)
from scow.testing.registry import tar_of
from scow_plugins.layout import _files, _layout
from scow_plugins.layout._contents import contents
from scow_plugins.layout._fetch import fetch_blob
from scow_plugins.layout._files import open_files, read
from scow_plugins.layout._place import parse_place
from scow_plugins.layout._publish import _write_index
from scow_plugins.layout._resolve import resolve_image

HERE = Platform("linux", "amd64")


class Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def offset(self) -> int:
        return len(self.data)

    async def write(self, data: bytes) -> None:
        self.data += data

    async def restart(self) -> None:
        self.data.clear()


def docker_archive(path: Path, *, names: list[str] | None = None, links: bool = False) -> tuple[Path, bytes]:
    """As dockers of old wrote it."""
    layer = tar_of({"etc/motd": b"hello"})
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(layer))]}}
    ).encode()
    items = [{"Config": "c.json", "RepoTags": names, "Layers": ["two/layer.tar" if links else "one/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        for name, data in (
            ("c.json", config),
            ("one/layer.tar", layer),
            ("manifest.json", json.dumps(items).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        if links:
            info = tarfile.TarInfo("two/layer.tar")
            info.type, info.linkname = tarfile.SYMTYPE, "../one/layer.tar"
            tar.addfile(info)
    return path, layer


@pytest.mark.parametrize("links", [False, True])
async def test_an_old_docker_archive(tmp_path: Path, links: bool) -> None:
    path, layer = docker_archive(tmp_path / "x.tar", names=["a/b:1"], links=links)
    for name in ("", ":a/b:1", ":@0", ":docker.io/a/b:1"):
        found = await resolve_image(Located("docker-archive", f"{path}{name}"), HERE)
        document = json.loads(found.manifest.data)
        assert document["layers"][0]["digest"] == str(Digest.of(layer))
        from scow.api import Descriptor

        sink = Sink()
        await fetch_blob(found.source, Descriptor("x/y", Digest.of(layer), len(layer)), sink)
        assert sink.data == layer
    for name in (":a/b:2", ":@1"):
        with pytest.raises(NotFound):
            await resolve_image(Located("docker-archive", f"{path}{name}"), HERE)


def test_names_of_an_archive(tmp_path: Path) -> None:
    path, _ = docker_archive(tmp_path / "x.tar", names=["a/b:1", "not a name"])
    (found,) = contents("docker-archive", path) or ()
    assert found.names == ("a/b:1",)
    assert contents("oci-archive", path) is None
    (tmp_path / "no").write_text("text")
    assert contents("docker-archive", tmp_path / "no") is None


@pytest.mark.parametrize("cut", range(0, 9000, 700))
async def test_a_cut_archive_is_refused(tmp_path: Path, cut: int) -> None:
    path, _ = docker_archive(tmp_path / "x.tar")
    data = path.read_bytes()
    path.write_bytes(data[:cut])
    with pytest.raises(ScowError):
        await resolve_image(Located("docker-archive", f"{path}"), HERE)


@pytest.mark.parametrize("at", range(0, 512, 37))
def test_a_damaged_header_is_refused(tmp_path: Path, at: int) -> None:
    path, _ = docker_archive(tmp_path / "x.tar")
    data = bytearray(path.read_bytes())
    data[at] ^= 0x55
    path.write_bytes(bytes(data))
    with pytest.raises(Corrupt):
        open_files(path, directory=False)


def test_long_names_and_sizes_of_pax(tmp_path: Path) -> None:
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=form) as tar:
            info = tarfile.TarInfo("é" * 90 + "/" + "x" * 150)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
        span = open_files(tmp_path / "x.tar", directory=False).find("é" * 90 + "/" + "x" * 150)
        assert span is not None
        assert read(span, 10) == b"abc"
        with pytest.raises(Corrupt, match="larger"):
            read(span, 2)


async def test_directories(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await resolve_image(Located("oci", f"{tmp_path}/none"), HERE)
    with pytest.raises(Corrupt, match=r"index\.json"):
        await resolve_image(Located("oci", f"{tmp_path}"), HERE)
    digest = Digest.of(b"gone")
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": str(digest), "size": 4}
    index = {"schemaVersion": 2, "manifests": [entry]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(NotFound, match="isn't there"):
        await resolve_image(Located("oci", f"{tmp_path}"), HERE)
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / digest.hex).write_text("else")
    with pytest.raises(Corrupt, match="damaged"):
        await resolve_image(Located("oci", f"{tmp_path}"), HERE)
    two = [{**entry, "platform": {"os": "linux", "architecture": arch}} for arch in ("arm64", "s390x")]
    (tmp_path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": two}))
    with pytest.raises(Unsupported, match="linux/amd64"):
        await resolve_image(Located("oci", f"{tmp_path}"), HERE)


@pytest.mark.parametrize(
    "index", [b"{}", b'{"manifests":null}', b'{"manifests":[{"annotations":null},{"annotations":7},{"digest":[]}]}']
)
def test_added_to_an_odd_index(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "index.json").write_bytes(index)
    before = json.loads(index).get("manifests") or []
    _write_index(tmp_path, [{"digest": "x"}])
    assert json.loads((tmp_path / "index.json").read_text())["manifests"] == [*before, {"digest": "x"}]


@pytest.mark.parametrize("index", [b"", b"[]", b'{"manifests":7}', b'{"manifests":[7]}', b'{"a":' * 100_000])
def test_nothing_is_added_to_a_broken_index(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "index.json").write_bytes(index)
    with pytest.raises(Corrupt, match="is not valid"):
        _write_index(tmp_path, [{"digest": "x"}])
    assert (tmp_path / "index.json").read_bytes() == index


@pytest.mark.parametrize("rest", ["", ":x", "a:", "a\0b"])
def test_places_that_are_none(rest: str) -> None:
    with pytest.raises(Invalid):
        parse_place(Located("oci", rest))


def archive_of_many(path: Path, count: int) -> None:
    """As current dockers write it: their list and a layout, each image with a configuration and a layer of its own."""
    items, entries, files = [], [], {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    for number in range(count):
        layer = tar_of({f"etc/{number}": b"hello"})
        rootfs = {"type": "layers", "diff_ids": [str(Digest.of(layer))]}
        config = json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs}).encode()
        parts = [
            {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data)}
            for kind, data in ((OCI_CONFIG, config), (OCI_LAYER, layer))
        ]
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": parts[0], "layers": parts[1:]}
        manifest = json.dumps(document).encode()
        names = [f"blobs/sha256/{Digest.of(data).hex}" for data in (config, layer, manifest)]
        files |= dict(zip(names, (config, layer, manifest), strict=True))
        items.append({"Config": names[0], "RepoTags": [f"many/image{number}:1"], "Layers": [names[1]]})
        entries.append({"mediaType": OCI_MANIFEST, "digest": str(Digest.of(manifest)), "size": len(manifest)})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    files["manifest.json"] = json.dumps(items).encode()
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


async def test_many_images_are_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the archive nor a manifest of it is read once for each of its images."""
    passes, documents = [], []
    scan, read_document = _files._scan, _layout._document
    monkeypatch.setattr(_files, "_scan", lambda *of: (passes.append(of), scan(*of))[1])
    monkeypatch.setattr(_layout, "_document", lambda *of: (documents.append(of), read_document(*of))[1])
    path, count = tmp_path / "many.tar", 20
    archive_of_many(path, count)
    await trio.sleep(0.1)  # what was written just now isn't remembered
    found = contents("docker-archive", path)
    assert found is not None
    assert [each.names for each in found] == [(f"many/image{number}:1",) for number in range(count)]
    for each in found:
        resolved = await resolve_image(each.reference, HERE)
        layer = parse_document(resolved.manifest.data, OCI_MANIFEST).layers[0]
        sink = Sink()
        await fetch_blob(resolved.source, layer, sink)
        assert Digest.of(bytes(sink.data)) == layer.digest
    assert len(passes) == 1
    # Once to know which configuration is whose, and once when an image is looked for.
    assert len(documents) == count * 2


async def test_another_archive_in_its_place_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "many.tar"
    archive_of_many(path, 3)
    assert len(contents("docker-archive", path) or ()) == 3
    archive_of_many(tmp_path / "other", 2)
    (tmp_path / "other").rename(path)
    assert len(contents("docker-archive", path) or ()) == 2
    archive_of_many(path, 4)
    assert len(contents("docker-archive", path) or ()) == 4


def test_an_archive_written_over_is_read_anew(tmp_path: Path) -> None:
    """Also by as many bytes, and sooner than time stamps tell."""
    path = tmp_path / "one.tar"
    for number in range(100):
        docker_archive(path, names=[f"a/b:{number:03}"])
        found = contents("docker-archive", path)
        assert found is not None
        assert found[0].names == (f"a/b:{number:03}",)
