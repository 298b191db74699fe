"""Named contexts: images, OCI layouts and directories that stand for names of a Dockerfile."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import Scow
from .test_build import build, context, launcher

__all__ = ["context", "launcher"]


@pytest.fixture
def layout(pulled: Scow, context: Path, tmp_path: Path) -> Path:
    """A layout with two images, `latest` and `old`; each says in /which who it is."""
    place = tmp_path / "some-layout"
    for name in ("old", "latest"):
        text = f"FROM busybox\nENV NAME={name}\nRUN echo {name} > /which\nCMD cat /which\n"
        build(pulled, context, text, "-q", "-t", f"which:{name}")
        pulled("push", f"which:{name}", f"oci:{place}:{name}")
        pulled("rmi", f"which:{name}")
    return place


def digest_of(layout: Path, name: str) -> str:
    for entry in json.loads((layout / "index.json").read_text())["manifests"]:
        if entry["annotations"]["org.opencontainers.image.ref.name"] == name:
            return str(entry["digest"])
    raise AssertionError(name)


def test_layouts(pulled: Scow, context: Path, layout: Path) -> None:
    text = "FROM base\nCOPY --from=other /which /other\nRUN echo $NAME >> /other\nCMD cat /which /other\n"
    (context / "Dockerfile").write_text(text)

    def said(base: str, other: str) -> list[str]:
        places = (f"base=oci-layout://{layout}{base}", f"other=oci-layout://{layout}{other}")
        image = pulled("build", "-q", *(f"--build-context={each}" for each in places), str(context)).strip()
        return pulled("run", "--rm", image).split()

    assert said("", ":old") == ["latest", "old", "latest"]
    assert said(":old", ":latest") == ["old", "latest", "old"]
    assert said(f"@{digest_of(layout, 'old')}", f":latest@{digest_of(layout, 'old')}") == ["old", "old", "old"]
    # An image that only an index leads to is known by its digest, too.
    inner = digest_of(layout, "old")
    index = json.loads((layout / "index.json").read_text())
    index["manifests"] = [each for each in index["manifests"] if each["digest"] != inner]
    (layout / "index.json").write_text(json.dumps(index))
    assert said(f"@{inner}", "") == ["old", "latest", "old"]
    # What it holds may change between builds.
    build(pulled, context, "FROM busybox\nENV NAME=new\nRUN echo new > /which\n", "-q", "-t", "which:new")
    pulled("push", "which:new", f"oci:{layout}:latest")
    (context / "Dockerfile").write_text(text)
    assert said("", "") == ["new", "new", "new"]
    for place, code, says in (
        (f"oci-layout://{layout}:none", 1, "holds no such image"),
        (f"oci-layout://{layout}@sha256:{'0' * 64}", 1, "holds no such image"),
        (f"oci-layout://{layout}@sha256:0", 2, "sha256 digest '0'"),
        ("oci-layout:///nowhere", 1, "/nowhere"),
        (f"oci-layout://{context}", 1, "no OCI image layout"),
        ("oci-layout://", 1, "oci-layout://DIRECTORY"),
    ):
        pulled.fails("build", f"--build-context=base={place}", str(context), code=code, says=says)


def test_from_a_place_of_this_machine(pulled: Scow, context: Path, layout: Path, tmp_path: Path) -> None:
    """As wherever an image is named, but only in a file that is the user's own."""
    archives = (f"oci-archive:{tmp_path}/o.tar:x/y:1", f"docker-archive:{tmp_path}/d.tar:x/y:1")
    pulled("pull", "-q", f"oci:{layout}:old")
    for archive in archives:
        pulled("push", "-q", f"oci:{layout}:old", archive)
    for place, name in (
        (f"oci:{layout}", "latest"),
        (f"oci:{layout}:old", "old"),
        *((each, "old") for each in archives),
    ):
        text = f"ARG PLACE\nFROM $PLACE\nRUN test $NAME = {name}\n"
        built = build(pulled, context, text, "-q", "--build-arg", f"PLACE={place}").split()[-1]
        assert pulled("run", "--rm", built) == f"{name}\n"
        assert pulled("build", "-q", "-", stdin=text.replace("$PLACE", place).encode()).split()[-1] == built
    (context / "Dockerfile").write_text(f"FROM oci:{layout}\n")
    packed = subprocess.run(["tar", "c", "-C", str(context), "."], check=True, capture_output=True).stdout
    done = pulled.try_("build", "-", stdin=packed)
    assert done.returncode == 2
    assert b"Dockerfile:1: image name 'oci:" in done.stderr


def test_a_dockerfile_looks_nowhere_else(pulled: Scow, context: Path, layout: Path) -> None:
    short = pulled("images", "-q").split()[0][:4]
    (context / "Dockerfile").write_text(f"FROM {short}\n")
    pulled.fails("build", str(context), code=1, says="Dockerfile:1: image")
    for line in (f"FROM oci-layout://{layout}", "FROM host:"):
        (context / "Dockerfile").write_text(f"{line}\n")
        errors = pulled.fails("build", str(context), code=2, says="Dockerfile:1: ")
        assert "latest" not in errors.partition("\n")[0]
    for origin in (f"oci:{layout}", "host:", "host:x"):
        (context / "Dockerfile").write_text(f"FROM busybox\nCOPY --from={origin} / /x\n")
        errors = pulled.try_("build", str(context)).stderr.decode()
        assert "Dockerfile:2:" in errors
        assert "no OCI" not in errors
    # Nor by way of a base image's trigger.
    build(pulled, context, f"FROM busybox\nONBUILD COPY --from=oci:{layout} / /x\n", "-q", "-t", "trigger")
    (context / "Dockerfile").write_text("FROM trigger\n")
    pulled.fails("build", str(context), code=2, says="image name 'oci:")


def test_names_mean_what_images_mean(pulled: Scow, context: Path) -> None:
    """Docker's familiar form counts, without `latest`; what isn't in reach is never asked for."""
    (context / "Dockerfile").write_text(
        "FROM docker.io/library/nowhere:latest\nCOPY --from=nowhere.example/a:1 /bin/sh /copied\n"
    )
    image = pulled(
        "build", "-q", "--build-context=nowhere=docker-image://busybox",
        "--build-context=nowhere.example/a:1=docker-image://docker.io/library/busybox:latest", str(context),
    ).strip()  # fmt: skip
    assert pulled("run", "--rm", image, "ls", "/copied") == "/copied\n"
    for text, code, says in (
        ("Big=.", 1, "invalid context name"),
        ("a=docker-image://Big", 2, "must be lower case"),
        ("a=", 1, "="),
    ):
        pulled.fails("build", "--build-context", text, str(context), code=code, says=says)


def test_a_directory_to_build_on(pulled: Scow, context: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "bin").mkdir(parents=True)
    (files / "bin" / "kept").write_text("kept\n")
    (files / "left").write_text("left out\n")
    (files / ".dockerignore").write_text("left\n")
    text = (
        "FROM tree AS base\nCOPY --from=busybox /bin /bin\nFROM base\nRUN ls / > /listed\nCMD cat /listed /bin/kept\n"
    )
    image = build(pulled, context, text, "-q", f"--build-context=tree={files}")
    listed = pulled("run", "--rm", image).split()
    assert "kept" in listed
    assert "left" not in listed
    history = json.loads(pulled("inspect", image))[0]
    assert history["Config"]["Env"] == ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    assert len(pulled("history", "-q", image).splitlines()) == 4
    # Nothing but what is in there counts.
    assert build(pulled, context, text, "-q", f"--build-context=tree={files}") == image
    (files / "bin" / "kept").write_text("changed\n")
    assert build(pulled, context, text, "-q", f"--build-context=tree={files}") != image


def test_a_context_replaces_a_stage(pulled: Scow, context: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "made").write_text("elsewhere\n")
    text = """FROM busybox AS Maker
RUN false
FROM busybox
COPY --from=maker /made /copied
COPY --from=0 /made /counted
CMD cat /copied /counted
"""
    image = build(pulled, context, text, "-q", f"--build-context=maker={files}")
    assert pulled("run", "--rm", image) == "elsewhere\nelsewhere\n"
    image = build(pulled, context, text, "-q", f"--build-context=maker={files}", "--target", "maker")
    assert json.loads(pulled("inspect", image))[0]["RootFS"]["Layers"]
