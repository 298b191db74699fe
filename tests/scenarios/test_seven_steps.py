"""What `docker container run` does, for real: a Debian with nginx on top, from a registry to a page in a browser."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import urllib.request
from pathlib import Path

import pytest

from . import images
from .conftest import Scow, free_port, require, wait_port

_NGINX = {
    "Cmd": ["nginx", "-g", "daemon off;"],
    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "ExposedPorts": {"80/tcp": {}},
    "StopSignal": "SIGQUIT",
}


@pytest.fixture(scope="session")
def nginx(registry: str, debian_tree: Path, debian_layer: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """library/nginx in the registry: OCI with gzip as `latest` and `oci-zstd`, Docker's format as `docker`."""
    require("skopeo")
    before = _listing(debian_tree)
    _install_nginx(debian_tree)
    changed = [path for path, stamp in _listing(debian_tree).items() if before.get(path) != stamp]
    top = images.layer_of(debian_tree, sorted(changed), recursive=False)
    layout = images.write_layout(tmp_path_factory.mktemp("nginx") / "layout", [debian_layer, top], _NGINX)
    images.push(layout, registry, "library/nginx:latest")
    images.push(layout, registry, "library/nginx:docker", "--format", "v2s2")
    images.push(layout, registry, "library/nginx:oci-zstd", "--format", "oci", "--dest-compress-format", "zstd")
    return "nginx"


def _listing(tree: Path) -> dict[str, tuple[int, int]]:
    """Every path with inode and, but for directories, time of last change."""
    found = {}
    for directory, folders, names in os.walk(tree):
        for name in [*names, *folders]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            changed = 0 if stat.S_ISDIR(status.st_mode) else status.st_ctime_ns
            found[os.path.relpath(path, tree)] = (status.st_ino, changed)
    return found


def _install_nginx(tree: Path) -> None:
    (tree / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (tree / "usr/sbin/policy-rc.d").chmod(0o755)
    subprocess.run(
        ["chroot", str(tree), "apt-get", "install", "-y", "-qq", "--no-install-recommends", "nginx-light"],
        check=True,
        capture_output=True,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
    )


@pytest.mark.parametrize("storage", ["", "native"], ids=["default", "native"])
def test_nginx(mirrored: Scow, nginx: str, storage: str) -> None:
    options = ["--storage", storage] if storage else []
    port = free_port()
    mirrored("run", "-d", "--name", "web", "-p", f"{port}:80", *options, nginx, timeout=240)
    wait_port(port, seconds=20)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert b"Welcome to nginx" in answer.read()

    stored = _blobs(mirrored)
    for name in ("second", "third"):
        mirrored("run", "-d", "--name", name, *options, nginx)
    assert _blobs(mirrored) == stored
    assert len(mirrored("ps", "-q").split()) == 3

    assert "nginx version" in mirrored("exec", "web", "sh", "-c", "nginx -v 2>&1")
    mirrored("exec", "web", "sh", "-c", "echo changed > /var/www/html/index.html")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
        assert answer.read() == b"changed\n"
    address = json.loads(mirrored("inspect", "second"))[0]["NetworkSettings"]["IPAddress"]
    with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
        assert b"Welcome to nginx" in answer.read()

    mirrored("stop", "web")
    assert json.loads(mirrored("inspect", "web"))[0]["State"]["ExitCode"] == 0
    mirrored("start", "web")
    wait_port(port, seconds=20)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=5) as answer:
        assert answer.read() == b"changed\n"
    mirrored("rm", "-f", "web", "second", "third")
    assert mirrored("ps", "-aq") == ""


@pytest.mark.parametrize("tag", ["docker", "oci-zstd"])
def test_other_formats(mirrored: Scow, nginx: str, tag: str) -> None:
    assert "nginx version" in mirrored("run", "--rm", f"{nginx}:{tag}", "sh", "-c", "nginx -v 2>&1", timeout=240)


def _blobs(scow: Scow) -> set[str]:
    """What lies in the store and in the layers: more containers add nothing."""
    layers = {str(path) for path in (scow.root / "storage").glob("*/layers/*")}
    return layers | {path.name for path in (scow.root / "content" / "blobs" / "sha256").iterdir()}
