"""Images in directories and archives: what scow writes skopeo reads, what skopeo writes scow reads."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from . import images
from .conftest import Scow, require


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """Descriptors and the directory come to the command by way of the launcher: the harder case."""
    return bool(request.param)


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """busybox, as one layer, under the tag `latest`."""
    require("busybox", "skopeo")
    home = tmp_path_factory.mktemp("layout")
    tree = images.busybox_tree(home / "tree")
    return images.write_layout(home / "layout", [images.layer_of(tree)], {"Cmd": ["echo", "hi"], "Env": ["PATH=/bin"]})


def skopeo(source: str, target: str, *options: str) -> None:
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", *options, source, target], check=True)


def config_of(name: str) -> str:
    """The digest of an image's configuration, which is its ID."""
    raw = subprocess.run(["skopeo", "inspect", "--raw", name], check=True, capture_output=True).stdout
    return str(json.loads(raw)["config"]["digest"])


def test_every_transport_runs(scow: Scow, layout: Path, tmp_path: Path) -> None:
    skopeo(f"oci:{layout}:latest", f"oci-archive:{tmp_path}/oci.tar:tool")
    skopeo(f"oci:{layout}:latest", f"docker-archive:{tmp_path}/docker.tar:tool:1")
    for name in (
        f"oci:{layout}:latest",
        f"oci:{layout}",
        f"oci-archive:{tmp_path}/oci.tar",
        f"oci-archive:{tmp_path}/oci.tar:tool",
        f"docker-archive:{tmp_path}/docker.tar",
        f"docker-archive:{tmp_path}/docker.tar:tool:1",
    ):
        assert scow("run", "--rm", name) == "hi\n", name
    scow("pull", "-q", f"oci:{layout}")
    scow.fails("run", f"oci:{layout}:nope", code=125, says="holds no such image")
    scow.fails("pull", f"oci:{tmp_path}/nowhere", code=1, says="doesn't exist")
    scow.fails("pull", f"oci-archive:{layout}", code=1, says="not a regular file")
    scow.fails("pull", f"docker-archive:{layout}/index.json", code=1, says="not a tar archive")
    scow.fails("pull", "oci:", code=2, says="names no path")


def test_what_lies_there_now_counts(scow: Scow, layout: Path, tmp_path: Path) -> None:
    place = tmp_path / "moving"
    skopeo(f"oci:{layout}:latest", f"oci:{place}:x")
    assert scow("run", "--rm", f"oci:{place}:x") == "hi\n"
    tree = images.busybox_tree(tmp_path / "tree")
    other = images.write_layout(tmp_path / "other", [images.layer_of(tree)], {"Cmd": ["echo", "new"]})
    skopeo(f"oci:{other}:latest", f"oci:{place}:x")
    assert scow("run", "--rm", f"oci:{place}:x") == "new\n"


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
def test_saved_by_scow_read_by_skopeo(pulled: Scow, registry: str, tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "saved.tar"
    pulled("save", "--format", kind, "-o", str(archive), "busybox")
    tag = "busybox:latest" if kind == "docker-archive" else "docker.io/library/busybox:latest"
    skopeo(f"{kind}:{archive}:{tag}", f"oci:{tmp_path}/back:x")
    piped = pulled.try_("save", "--format", kind, "busybox")
    assert (piped.returncode, piped.stderr) == (0, b"")
    (tmp_path / "piped.tar").write_bytes(piped.stdout)
    skopeo(f"{kind}:{tmp_path}/piped.tar", f"oci:{tmp_path}/again:x")
    if kind == "oci-archive":
        assert config_of(f"oci:{tmp_path}/back:x") == config_of(f"oci:{tmp_path}/again:x")
    pulled("rmi", "busybox")
    assert pulled("load", "-q", "-i", str(archive)) == "Loaded image: busybox:latest\n"
    assert pulled("run", "--rm", "busybox", "cat", "/second/layer") == "upper\n"


def test_several_images_and_none_by_name(pulled: Scow, registry: str, tmp_path: Path) -> None:
    pulled("tag", "busybox", "other:1")
    pulled("pull", "-q", f"{registry}/team/tool:1.2")
    pulled("save", "-o", str(tmp_path / "all.tar"), "busybox", "other:1", f"{registry}/team/tool:1.2")
    with tarfile.open(tmp_path / "all.tar") as tar:
        listed = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        names = tar.getnames()
    assert listed[0]["RepoTags"] == ["busybox:latest", "other:1", f"{registry}/team/tool:1.2"]
    assert len(names) == len(set(names))
    ident = pulled("images", "-q", "--no-trunc", "busybox").strip()
    pulled("save", "-o", str(tmp_path / "bare.tar"), ident)
    pulled("rmi", "-f", ident)
    assert pulled("load", "-q", "-i", str(tmp_path / "bare.tar")) == f"Loaded image ID: {ident}\n"
    assert pulled("run", "--rm", ident[7:19], "echo", "here") == "here\n"


@pytest.mark.parametrize("pack", [gzip.compress, None, "zstd"], ids=["gzip", "plain", "zstd"])
def test_written_by_skopeo_loaded_by_scow(scow: Scow, layout: Path, tmp_path: Path, pack: object) -> None:
    skopeo(f"oci:{layout}:latest", f"docker-archive:{tmp_path}/docker.tar:team/tool:1")
    skopeo(f"oci:{layout}:latest", f"oci-archive:{tmp_path}/oci.tar:example.org/tool:2")
    for name, says in (("docker.tar", "team/tool:1"), ("oci.tar", "example.org/tool:2")):
        data = (tmp_path / name).read_bytes()
        if pack == "zstd":
            import zstandard

            data = zstandard.ZstdCompressor().compress(data)
        elif callable(pack):
            data = pack(data)
        done = scow.try_("load", "-q", stdin=data)
        assert (done.returncode, done.stdout.decode()) == (0, f"Loaded image: {says}\n"), done.stderr
        assert scow("run", "--rm", says) == "hi\n"


def test_what_is_no_archive(scow: Scow, tmp_path: Path) -> None:
    for data in (b"", b"hello", b"\x1f\x8b broken", b"\0" * 10240):
        (tmp_path / "x").write_bytes(data)
        done = scow.try_("load", "-i", str(tmp_path / "x"))
        assert done.returncode in (1, 2)
        assert b"Traceback" not in done.stderr
        assert b"bug" not in done.stderr
    scow.fails("load", "-i", str(tmp_path / "nowhere"), code=1, says="can't open")
    scow.fails("save", "-o", str(tmp_path / "y"), "nothing", code=1, says="no such image")
    scow("pull", "-q", "host:")
    scow.fails("save", "-o", str(tmp_path / "y"), "host:", code=1, says="can't go out")
    assert sorted(path.name for path in tmp_path.iterdir() if "y" in path.name) == []


def test_pushed_into_a_directory(pulled: Scow, tmp_path: Path) -> None:
    pulled("push", "busybox", f"oci:{tmp_path}/out:one")
    pulled("push", "busybox", f"oci:{tmp_path}/out:two")
    pulled("push", "busybox", f"oci:{tmp_path}/out:one")
    index = json.loads((tmp_path / "out" / "index.json").read_text())
    assert len(index["manifests"]) == 2
    skopeo(f"oci:{tmp_path}/out:one", f"oci:{tmp_path}/copy:x")
    assert pulled("run", "--rm", f"oci:{tmp_path}/out:two", "echo", "here") == "here\n"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    pulled.fails("push", "busybox", f"oci:{tmp_path}/full:x", code=2, says="not empty")


def test_skopeo_reads_the_store_as_it_is(pulled: Scow, tmp_path: Path) -> None:
    skopeo(f"oci:{pulled.root}/content:docker.io/library/busybox:latest", f"oci:{tmp_path}/out:x")


def test_import(scow: Scow, layout: Path, tmp_path: Path) -> None:
    tree = images.busybox_tree(tmp_path / "tree")
    data = images.layer_of(tree)
    options = ["-c", 'CMD ["echo", "imported"]', "-c", "ENV PATH=/bin", "-m", "by hand"]
    done = scow.try_("import", *options, "-", "mine:1", stdin=gzip.compress(data))
    assert (done.returncode, done.stdout[:7]) == (0, b"sha256:"), done.stderr
    assert scow("run", "--rm", "mine:1") == "imported\n"
    assert "by hand" in scow("history", "--no-trunc", "mine:1")
    (tmp_path / "bare.tar").write_bytes(data)
    ident = scow("import", str(tmp_path / "bare.tar")).strip()
    assert scow("run", "--rm", ident[7:19], "/bin/echo", "bare") == "bare\n"
    for bad in (b"", b"no archive at all" * 100):
        (tmp_path / "bad").write_bytes(bad)
        done = scow.try_("import", str(tmp_path / "bad"), "bad:1")
        assert done.returncode != 0
        assert b"bug" not in done.stderr
    scow.fails("import", "https://example.org/x.tar", code=1, says="doesn't fetch")
    assert "bad" not in scow("images")
