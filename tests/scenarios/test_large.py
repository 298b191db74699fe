"""An image of several hundred MB, tens of thousands of files of this machine: in, out, and onto a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import images
from .conftest import Scow, require

#: Unpacked; about a third of it compressed.
BYTES = 400_000_000
ENTRIES = 30_000
PLACES = ("usr/share", "usr/lib", "usr/include", "usr/bin", "usr/local")
LAYERS = 4


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The launcher makes no difference here."""
    return bool(request.param)


@pytest.fixture(scope="module")
def large(registry: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """The image's name in the registry, and every path in it beside busybox's."""
    require("busybox", "skopeo", "tar", "zstd")
    home = tmp_path_factory.mktemp("large")
    chosen = list(_choose())
    tree = images.busybox_tree(home / "tree")
    layout = images.write_layout(
        home / "layout", [images.layer_of(tree, ["bin", "etc", "tmp"])], {"Cmd": ["sh"], "Env": ["PATH=/bin"]}
    )
    for number in range(LAYERS):
        part = chosen[number::LAYERS]  # every directory in every layer
        _add_layer(layout, home, part, "zstd" if number == LAYERS - 1 else "gzip")
    images.push(layout, registry, "large/image:1")
    return f"{registry}/large/image:1", chosen


def _choose() -> Iterator[str]:
    """Directories, files, links and special files, until there are enough; paths from the root."""
    size = count = 0
    for place in PLACES:
        for directory, folders, names in os.walk(f"/{place}"):
            folders.sort()
            for name in sorted([*names, *folders]):
                path = os.path.join(directory, name)
                status = os.lstat(path)
                if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
                    continue
                size, count = size + status.st_size, count + 1
                if size > BYTES or count > ENTRIES:
                    return
                yield path[1:]


def _add_layer(layout: Path, home: Path, paths: list[str], kind: str) -> None:
    """Pack files of the machine as one more layer of a layout's only image."""
    (home / "list").write_bytes(b"\0".join(os.fsencode(path) for path in paths))
    tar = ["tar", "-c", "--format=pax", "--no-recursion", "--null", "--xattrs", "-C", "/", "-T", str(home / "list")]
    packed, diff = home / "layer", hashlib.sha256()
    squeeze = ["zstd", "-q", "-1"] if kind == "zstd" else ["gzip", "-1"]
    if kind == "gzip" and shutil.which("pigz"):
        squeeze = ["pigz", "-1"]
    with (
        packed.open("wb") as file,
        subprocess.Popen(tar, stdout=subprocess.PIPE) as source,
        subprocess.Popen(squeeze, stdin=subprocess.PIPE, stdout=file) as squeezer,
    ):
        assert source.stdout is not None
        assert squeezer.stdin is not None
        while piece := source.stdout.read(1 << 20):
            diff.update(piece)
            squeezer.stdin.write(piece)
        squeezer.stdin.close()
        assert (source.wait(), squeezer.wait()) == (0, 0)
    blobs = layout / "blobs" / "sha256"
    with packed.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = packed.stat().st_size
    packed.rename(blobs / digest)
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    config["rootfs"]["diff_ids"].append(f"sha256:{diff.hexdigest()}")
    media_type = f"application/vnd.oci.image.layer.v1.tar+{kind}"
    manifest["layers"].append({"mediaType": media_type, "digest": f"sha256:{digest}", "size": size})
    manifest["config"].update(_put(blobs, config))
    index["manifests"][0].update(_put(blobs, manifest))
    (layout / "index.json").write_text(json.dumps(index))


def _put(blobs: Path, document: dict) -> dict:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "size": len(data)}


def skopeo(source: str, target: str, *options: str) -> None:
    subprocess.run(["skopeo", "copy", "-q", "--insecure-policy", *options, source, target], check=True)


def raw(name: str, *options: str) -> dict:
    shown = subprocess.run(["skopeo", "inspect", "--raw", *options, name], check=True, capture_output=True).stdout
    return dict(json.loads(shown))


def test_in_and_out(scow: Scow, large: tuple[str, list[str]], registry: str, tmp_path: Path) -> None:
    name, paths = large
    scow("pull", "-q", name)
    listed = scow("run", "--rm", "--network", "none", name, "find", "/usr").splitlines()
    directories = {os.path.dirname(path) for path in paths}
    assert set(listed) >= {f"/{path}" for path in paths}
    assert len(listed) - len(paths) <= len(directories)
    sample = [path for path in paths[:: len(paths) // 300] if stat.S_ISREG(os.lstat(f"/{path}").st_mode)]
    sums = scow("run", "--rm", "--network", "none", name, "md5sum", *(f"/{path}" for path in sample))
    assert sums == subprocess.run(["md5sum", *(f"/{path}" for path in sample)], capture_output=True, text=True).stdout
    # Out of the store as it is, and back in.
    whole = raw(f"docker://{name}", "--tls-verify=false")
    skopeo(f"oci:{scow.root}/content:{name}", f"oci:{tmp_path}/out:x")
    assert raw(f"oci:{tmp_path}/out:x") == whole
    scow("push", "-q", name, f"{registry}/large/again:1")
    assert raw(f"docker://{registry}/large/again:1", "--tls-verify=false") == whole
    scow("save", "-o", str(tmp_path / "docker.tar"), name)
    scow("save", "--format", "oci-archive", "-o", str(tmp_path / "oci.tar"), name)
    scow("rmi", "-f", whole["config"]["digest"])
    assert not list((scow.root / "content" / "blobs" / "sha256").iterdir())
    scow("pull", "-q", f"oci:{tmp_path}/out:x")
    assert scow("images", "-q", "--no-trunc").strip() == whole["config"]["digest"]
    # What scow saved: skopeo reads it, and scow itself.
    skopeo(f"docker-archive:{tmp_path}/docker.tar:{name}", f"oci:{tmp_path}/out:docker")
    skopeo(f"oci-archive:{tmp_path}/oci.tar:{name}", f"oci:{tmp_path}/out:oci")
    assert raw(f"oci:{tmp_path}/out:oci") == whole
    assert raw(f"oci:{tmp_path}/out:docker", "--config")["rootfs"] == raw(f"oci:{tmp_path}/out:x", "--config")["rootfs"]
    assert scow("load", "-q", "-i", str(tmp_path / "oci.tar")) == f"Loaded image: {name}\n"
    # What skopeo pulled of scow's push and saved, scow loads.
    (tmp_path / "oci.tar").unlink()
    skopeo(f"docker://{registry}/large/again:1", f"oci-archive:{tmp_path}/oci.tar:large:2", "--src-tls-verify=false")
    assert scow("load", "-q", "-i", str(tmp_path / "oci.tar")) == "Loaded image: large:2\n"
    assert scow("images", "-q", "--no-trunc", "large:2").strip() == whole["config"]["digest"]
    assert "all well" in scow("fsck", "--layers=false")


def test_a_disk_that_fills_up(
    scow: Scow, large: tuple[str, list[str]], busybox: str, registry: str, tmp_path: Path
) -> None:
    """The store stays whole, what came is kept, and the pull goes on after space was made."""
    name, _ = large
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(small)], check=True)
    try:
        scow.root = small / "root"
        scow("pull", "-q", f"{registry}/library/busybox")
        before = scow("images")
        errors = scow.fails("pull", name, code=1, says="hint: make room")
        # Whichever comes first, the layer or what it unpacks to.
        assert "is full" in errors or "no room to unpack" in errors
        assert scow("images") == before
        assert "all well" in scow("fsck", "--layers=false")
        came = sum(path.stat().st_size for path in (small / "root" / "content").rglob("sha256*"))
        assert came > 10_000_000
        # Full or not: what is there works, and things can be removed.
        scow("tag", f"{registry}/library/busybox", "other:1")
        scow("rmi", "other:1")
        scow("create", "--name", "made", f"{registry}/library/busybox")
        scow("rm", "made")
        subprocess.run(["mount", "-o", "remount,size=2g", str(small)], check=True)
        assert scow("run", "--rm", "--network", "none", f"{registry}/library/busybox", "echo", "well") == "well\n"
        scow("pull", "-q", name)
        assert "all well" in scow("fsck", "--layers=false")
        assert not list((small / "root" / "content" / "ingest").iterdir())
        assert not [path for path in small.rglob("*") if "tmp" in path.name and path.parent.name != "root"]
        scow.stop_launcher()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
        scow.root = tmp_path / "root"
