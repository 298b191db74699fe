"""Where the result of a build goes: archives, layouts, plain files, registries. Others read what scow writes."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from .conftest import Scow, require
from .test_build import build, context, launcher

__all__ = ["context", "launcher"]

TEXT = """FROM scratch
COPY --from=busybox /bin /bin
COPY --chown=5:6 --chmod=640 said /d/
RUN ["/bin/busybox", "ln", "-s", "/etc", "/link"]
CMD ["/bin/busybox", "cat", "/d/said"]
"""


def skopeo(place: str, *flags: str) -> dict[str, Any]:
    require("skopeo")
    done = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", *flags, place], capture_output=True, check=True, env=os.environ
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_archives_and_layouts(pulled: Scow, context: Path, tmp_path: Path) -> None:
    (context / "said").write_text("said\n")
    archive, layout, oci = tmp_path / "docker.tar", tmp_path / "layout", tmp_path / "oci.tar"
    image = build(
        pulled,
        context,
        TEXT,
        "-t",
        "one:1",
        "-o",
        f"type=docker,dest={archive}",
        "-o",
        f'"type=oci","dest={layout}","tar=false","name=two:2,three:3","annotation.b=c"',
        "--output",
        f"type=oci,dest={oci}",
        "--annotation",
        "a=all of it",
        "--annotation",
        "manifest:m=x",
    )
    assert "one" not in pulled("images")
    assert skopeo(f"docker-archive:{archive}", "--config")["config"]["Cmd"] == ["/bin/busybox", "cat", "/d/said"]
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)[0]["RepoTags"] == ["one:1"]
    for name in ("one:1", "two:2", "three:3"):
        raw = skopeo(f"oci:{layout}:docker.io/library/{name}", "--raw")
        assert raw["annotations"] == {"a": "all of it", "m": "x", "b": "c"}
        assert raw["config"]["digest"] == image
    assert skopeo(f"oci-archive:{oci}", "--raw")["annotations"] == {"a": "all of it", "m": "x"}
    subprocess.run(
        ["skopeo", "copy", "-q", f"oci:{layout}:docker.io/library/two:2", f"docker-archive:{tmp_path}/copied.tar"],
        check=True,
    )
    # And back: what docker and skopeo read, runs.
    assert "one:1" in pulled("load", "-i", str(archive))
    assert pulled("run", "--rm", "one:1") == "said\n"


def test_files(pulled: Scow, context: Path, tmp_path: Path) -> None:
    (context / "said").write_text("said\n")
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "d" / "kept").write_text("kept")
    # What lies there already leads to the host: nothing is written through it.
    host = tmp_path / "host"
    (host / "said").parent.mkdir()
    (host / "said").write_text("of the host")
    (out / "bin").symlink_to(host)
    (out / "d" / "said").symlink_to(host / "said")
    (context / "Dockerfile").write_text(TEXT)
    assert pulled("build", "-o", str(out), str(context)) == ""
    assert (out / "d" / "said").read_text() == "said\n"
    assert (out / "d" / "kept").exists()
    status = (out / "d" / "said").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (os.getuid(), 0o640)
    assert not (out / "bin").is_symlink()
    assert os.readlink(out / "link") == "/etc"
    assert [path.name for path in host.iterdir()] == ["said"]
    assert (host / "said").read_text() == "of the host"
    done = pulled.try_("build", "-o", "-", str(context))
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        member = tar.getmember("d/said")
        assert (member.uid, member.gid, member.mode) == (5, 6, 0o640)
    pulled("build", "--output", f"type=tar,dest={tmp_path}/files.tar", str(context))
    assert (tmp_path / "files.tar").read_bytes() == done.stdout
    assert pulled("images", "-q").count("\n") == 1
    archive = pulled.try_("build", "-o", "type=docker,dest=-", "-t", "piped", str(context)).stdout
    assert "piped" in pulled("load", stdin=archive)
    assert pulled("build", "-o", "type=cacheonly", str(context)) == ""


def test_push_and_load(pulled: Scow, registry: str, context: Path, tmp_path: Path) -> None:
    with pulled.config.open("a") as file:
        file.write(f'[registries."{registry}"]\ninsecure = true\n')
    (context / "said").write_text("said\n")
    one, two = f"{registry}/outputs/one:1", f"{registry}/outputs/two:2"
    build(pulled, context, TEXT, "-o", f"type=registry,name={one}", "--annotation", "x=y")
    build(pulled, context, TEXT, "-o", f"type=image,push=true,name={two}", "-o", f"type=tar,dest={tmp_path}/x.tar")
    for name in (one, two):
        assert skopeo(f"docker://{name}")["Architecture"] in ("amd64", "arm64")
    assert skopeo(f"docker://{one}", "--raw")["annotations"] == {"x": "y"}
    build(pulled, context, TEXT, "-t", "loaded", "--load", "-o", f"type=local,dest={tmp_path}/l")
    assert pulled("run", "--rm", "loaded") == "said\n"


def test_what_cannot_be(pulled: Scow, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN false\n")
    for flag, says in (
        ("type=what", "type is one of image, docker"),
        ("type=tar", "needs dest=PATH"),
        ("type=local,dest=-", "can't go to standard output"),
        (f"type=oci,dest={tmp_path}/x,compression=zstd", "compression=zstd of --output is not supported"),
        ("type=image,push-by-digest=true", "push-by-digest of --output type=image is not supported"),
        ("type=image,push=perhaps", "write true or false"),
    ):
        pulled.fails("build", "-o", flag, str(context), code=1, says=says)
    for flag, says in (
        ("type=registry", "a push needs a name"),
        (f"type=docker,dest={tmp_path}/a:b", "its path has a colon"),
        (f"type=oci,dest={tmp_path}/x,name=Capital", "Capital"),
    ):
        pulled.fails("build", "-o", flag, str(context), code=2, says=says)
    pulled.fails("build", "--annotation", "index:a=b", str(context), code=1, says="annotations of the index")
    pulled.fails("build", "--provenance=true", str(context), code=1, says="images have no attestations")
    pulled.fails("build", "--sbom", "generator=x", str(context), code=1, says="images have no attestations")
    (context / "Dockerfile").write_text("FROM busybox\n")
    pulled.fails("build", "-o", f"type=tar,dest={tmp_path}/none/x", str(context), code=1, says="its directory")
    pulled.fails("build", "-o", f"{context}/Dockerfile", str(context), code=2, says="can't be written to")
    pulled("build", "-q", "--provenance=false", "--sbom=false", "--attest", "type=sbom,disabled=true", str(context))
