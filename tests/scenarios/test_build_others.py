"""What scow builds, others take and run: skopeo copies it, umoci unpacks it, buildah runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Scow, require
from .test_build import build, context, launcher

__all__ = ["context", "launcher"]

TEXT = """FROM busybox AS tool
RUN mkdir -p /out/deep && echo made > /out/deep/file && ln /out/deep/file /out/same && ln -s deep/file /out/link && \\
    chmod 4750 /out/deep/file && chown 33:44 /out/deep && mkdir /out/gone && touch /out/gone/x
FROM busybox
ENV GREETING="hello there" PATH=/bin
WORKDIR /srv/app
COPY --from=tool /out /out
RUN rm -r /out/gone && mkdir /out/again && echo "$GREETING" > said
COPY --chown=33:44 --chmod=600 file /srv/file
USER 33:44
EXPOSE 80
LABEL made=by-scow
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat said /srv/file; id -u; pwd; ls -d /out/gone || echo no gone"]
"""
SAID = ["hello there", "content", "33", "/srv/app", "no gone"]


@pytest.fixture
def built(pulled: Scow, context: Path, tmp_path: Path) -> Path:
    """Two archives and a layout."""
    (context / "file").write_text("content\n")
    place = tmp_path / "built"
    place.mkdir()
    outputs = (f"type=oci,dest={place}/oci.tar", f"type=docker,dest={place}/docker.tar", "type=image")
    layout = f"type=oci,tar=false,dest={place}/layout"
    build(pulled, context, TEXT, "-t", "mine:1", *(word for each in (*outputs, layout) for word in ("-o", each)))
    assert pulled("run", "--rm", "mine:1").splitlines() == SAID
    return place


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """Everything is accepted."""
    path = tmp_path / "policy.json"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    return path


def run(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def name_in(layout: Path) -> str:
    (manifest,) = json.loads((layout / "index.json").read_text())["manifests"]
    return str(manifest["annotations"]["org.opencontainers.image.ref.name"])


def test_skopeo_copies_it(built: Path, tmp_path: Path) -> None:
    """Every digest and size is checked on the way, and what it says is the same wherever it lies."""
    require("skopeo")
    said = []
    for number, place in enumerate(("oci-archive:oci.tar", "docker-archive:docker.tar", "oci:layout:NAME")):
        kind, _, name = place.partition(":")
        source = f"{kind}:{built}/{name.replace('NAME', name_in(built / 'layout'))}"
        config = json.loads(run("skopeo", "inspect", "--config", source))
        assert config["config"]["Entrypoint"] == ["/bin/sh", "-c"]
        assert config["config"]["User"] == "33:44"
        assert config["config"]["Labels"]["made"] == "by-scow"
        said.append(config)
        target = tmp_path / f"copy{number}"
        run("skopeo", "copy", "-q", "--insecure-policy", source, f"dir:{target}")
        assert (target / "manifest.json").exists()
        back = f"oci-archive:{tmp_path}/back{number}.tar:x"
        run("skopeo", "copy", "-q", "--insecure-policy", "--dest-compress", source, back)
    assert said[0] == said[1] == said[2]


def test_umoci_unpacks_it(built: Path, tmp_path: Path) -> None:
    require("umoci")
    run("umoci", "unpack", "--image", f"{built}/layout:{name_in(built / 'layout')}", tmp_path / "bundle")
    root = tmp_path / "bundle" / "rootfs"
    found = (root / "out" / "deep" / "file").stat()
    assert found.st_mode & 0o7777 == 0o4750
    assert (root / "out" / "deep").stat().st_uid == 33
    assert os.readlink(root / "out" / "link") == "deep/file"
    assert not (root / "out" / "gone").exists()
    assert (root / "out" / "again").is_dir()
    shutil.rmtree(tmp_path / "bundle")


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[list[str]]:
    """buildah with a store of its own, plain directories."""
    require("buildah")
    home = tmp_path / "buildah"
    words = ["buildah", "--root", f"{home}/root", "--runroot", f"{home}/run", "--storage-driver", "vfs"]
    yield words
    run(*words, "rm", "--all")
    shutil.rmtree(home, ignore_errors=True)


def test_buildah_runs_it(built: Path, buildah: list[str], policy: Path) -> None:
    for place in ("oci-archive:oci.tar", "docker-archive:docker.tar"):
        kind, _, name = place.partition(":")
        made = run(*buildah, "from", "-q", "--signature-policy", policy, f"{kind}:{built}/{name}").strip()
        # buildah's own `run` knows no entry point and no command: they are given.
        command = json.loads(run(*buildah, "inspect", made))["OCIv1"]["config"]
        words = [*command["Entrypoint"], *command["Cmd"]]
        assert run(*buildah, "run", "--isolation", "chroot", made, "--", *words).splitlines() == SAID
