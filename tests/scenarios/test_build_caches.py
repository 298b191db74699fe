"""A second machine takes its layers out of the first one's cache: from a registry, a directory, an image itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Scow, engine_at, require
from .test_build import context, launcher, steps

__all__ = ["context", "launcher"]

TEXT = """FROM busybox AS tool
RUN head -c 8 /dev/urandom | od -An -tx1 > /made && mkdir -p /deep
FROM busybox
WORKDIR /srv
COPY code /srv/code
RUN --mount=target=/ctx --mount=type=secret,id=s,env=WORDS cat /ctx/code > /ran; echo $WORDS | wc -c >> /ran
COPY --from=tool /made /made
ARG WORD
RUN echo $WORD > /word
CMD cat /made
"""
STEPS = 6


@pytest.fixture
def second(launcher: bool, tmp_path: Path, registry: str, busybox: str) -> Iterator[Scow]:
    """Another machine."""
    home = tmp_path / "second"
    home.mkdir()
    for engine in engine_at(home, launcher, registry):
        engine("pull", "-q", busybox)
        yield engine


@pytest.fixture
def text(context: Path, tmp_path: Path) -> str:
    (context / "code").write_text("code\n")
    (tmp_path / "secret").write_text("very secret words")
    return TEXT


def flags(tmp_path: Path) -> tuple[str, ...]:
    return ("-t", "built", "--secret", f"id=s,src={tmp_path}/secret", "--build-arg", "WORD=plainly-said")


def elsewhere(context: Path, tmp_path: Path) -> Path:
    """The same files, as another machine has them: other inodes, other times."""
    other = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", context, other], check=True)
    return other


def image_id(scow: Scow) -> str:
    return str(json.loads(scow("inspect", "built"))[0]["Id"])


def work(found: tuple[list[str], list[str]]) -> list[str]:
    return [title for title in found[0] if title]


def test_a_registry_keeps_it(
    pulled: Scow, second: Scow, registry: str, context: Path, text: str, tmp_path: Path
) -> None:
    place = f"{registry}/caches/one:latest"
    for each in (pulled, second):
        with each.config.open("a") as file:
            file.write(f'[registries."{registry}"]\ninsecure = true\n')
    missing = pulled.try_(
        "build", "--progress=plain", "--cache-from", place, "-f", "-", str(context), stdin=b"FROM busybox\n"
    )
    assert missing.returncode == 0
    assert f"no cache from {place}" in missing.stderr.decode()
    full = ("--cache-to", f"type=registry,ref={place},mode=max")
    assert len(work(steps(pulled, context, text, *flags(tmp_path), *full))) == STEPS
    other = elsewhere(context, tmp_path)
    found = steps(second, other, text, *flags(tmp_path), "--cache-from", place)
    assert (work(found), len(found[1])) == ([], STEPS)
    assert image_id(second) == image_id(pulled)
    assert second("run", "--rm", "built") == pulled("run", "--rm", "built")
    # From then on it is its own.
    assert work(steps(second, other, text, *flags(tmp_path))) == []
    (other / "code").write_text("changed\n")
    assert work(steps(second, other, text, *flags(tmp_path), "--cache-from", place))[0] == "COPY code /srv/code"


def test_a_directory_keeps_what_the_result_is_made_of(
    pulled: Scow, second: Scow, context: Path, text: str, tmp_path: Path
) -> None:
    place = tmp_path / "cache"
    steps(pulled, context, text, *flags(tmp_path), "--cache-to", f"type=local,dest={place}")
    (manifest,) = json.loads((place / "index.json").read_text())["manifests"]
    assert manifest["annotations"]["org.opencontainers.image.ref.name"] == "latest"
    found = steps(
        second, elsewhere(context, tmp_path), text, *flags(tmp_path), "--cache-from", f"type=local,src={place}"
    )
    # The stage that is only copied from was not written, and makes something else here.
    assert work(found)[0].startswith("RUN head")
    assert len(found[1]) == 3
    for words in (b"very secret words", b"plainly-said"):
        assert not [
            path for path in place.glob("blobs/*/*") if words in path.read_bytes() and b"rootfs" in path.read_bytes()
        ]
    kept = subprocess.run(["grep", "-rl", "very secret words", place], capture_output=True, check=False)
    assert not kept.stdout


def test_an_image_carries_its_own(
    pulled: Scow, second: Scow, registry: str, context: Path, text: str, tmp_path: Path
) -> None:
    name = f"{registry}/caches/inline:1"
    for each in (pulled, second):
        with each.config.open("a") as file:
            file.write(f'[registries."{registry}"]\ninsecure = true\n')
    steps(pulled, context, text, *flags(tmp_path)[2:], "-t", name, "--push", "--build-arg", "BUILDKIT_INLINE_CACHE=1")
    found = steps(second, elsewhere(context, tmp_path), text, *flags(tmp_path), "--cache-from", name)
    assert len(found[1]) == 3
    # What is built on such an image doesn't inherit it.
    assert "io.scow.build.cache" in _config(second, name)
    second("pull", "-q", name)
    derived = second("build", "-q", "-", stdin=f"FROM {name}\nLABEL a=b\n".encode()).strip()
    second("tag", derived, "derived")
    assert "io.scow.build.cache" not in _config(second, "derived")


def _config(scow: Scow, name: str) -> dict[str, Any]:
    if name != "derived":
        require("skopeo")
        done = subprocess.run(
            ["skopeo", "inspect", "--tls-verify=false", "--raw", "--config", f"docker://{name}"],
            capture_output=True,
            check=True,
        )
        found = json.loads(done.stdout)
    else:
        identity = json.loads(scow("inspect", name))[0]["Id"].removeprefix("sha256:")
        found = json.loads((scow.root / "content" / "blobs" / "sha256" / identity).read_bytes())
    assert isinstance(found, dict)
    return found


class Layout:
    """A cache in a directory, to be spoilt."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def blob(self, digest: str) -> Path:
        return self.place / "blobs" / digest.replace(":", "/")

    def manifest(self) -> dict[str, Any]:
        found = json.loads((self.place / "index.json").read_text())["manifests"][0]
        return dict(json.loads(self.blob(found["digest"]).read_text()))

    def put(self, manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["config"] |= self._write(json.dumps(config).encode())
        entry = {"mediaType": manifest["mediaType"], "annotations": {"org.opencontainers.image.ref.name": "latest"}}
        entry |= self._write(json.dumps(manifest).encode())
        (self.place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))

    def _write(self, data: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blob(digest).write_bytes(data)
        return {"digest": digest, "size": len(data)}


def test_hostile_caches(pulled: Scow, second: Scow, context: Path, tmp_path: Path) -> None:
    """What doesn't fit its digest, its size or its place isn't used, and the build goes on without."""
    place = tmp_path / "cache"
    text = "FROM busybox\nRUN echo good > /x\nCMD cat /x\n"
    steps(pulled, context, text, "--cache-to", f"type=local,dest={place}")
    layout = Layout(place)
    manifest = layout.manifest()
    config = json.loads(layout.blob(manifest["config"]["digest"]).read_text())
    evil = b"evil" * 2560
    evil_digest = f"sha256:{hashlib.sha256(evil).hexdigest()}"
    layout.blob(evil_digest).write_bytes(evil)
    good = manifest["layers"][0]
    record = config["io.scow.build.cache"]["records"][0]

    def tried(layers: list[dict[str, Any]], cache: object, **more: Any) -> str:
        layout.put({**manifest, "layers": layers}, {**config, "io.scow.build.cache": cache, **more})
        (context / "Dockerfile").write_text(text)
        done = second.try_(
            "build", "--no-cache-filter=none", "--progress=plain", "-t", "built", "--cache-from",
            f"type=local,src={place}", str(context),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        assert second("run", "--rm", "built") == "good\n"
        (second.root / "build" / "cache.db").unlink()
        return done.stderr.decode()

    whole = config["io.scow.build.cache"]
    bad = [
        ([{**good, "digest": evil_digest, "size": len(evil)}], whole, "is said to hold"),
        ([{**good, "size": good["size"] - 1}], whole, "isn't used any more"),
        (
            [{**good, "mediaType": good["mediaType"] + "+gzip", "digest": evil_digest, "size": len(evil)}],
            whole,
            "does not hold",
        ),
        ([good], {**whole, "records": [[record[0], 1, 0]]}, "can't be"),
        ([good], {**whole, "records": [[record[0], -1, 0]]}, "can't be"),
        ([good], {**whole, "records": [["../../x", 0, 0]]}, "can't be"),
        ([good], {**whole, "records": [[record[0], 0, -5]]}, "can't be"),
        ([good], {**whole, "memos": [[record[0], "/etc/passwd"]]}, "can't be"),
        ([good], {**whole, "records": {"a": 1}}, "is not valid"),
        ([good], {**whole, "version": 2}, "has version 2"),
        ([good], "what", "is not valid"),
    ]
    for layers, cache, says in bad:
        errors = tried(layers, cache)
        assert says in errors, errors
        assert "CACHED" not in errors
    layout.blob(good["digest"]).write_bytes(b"y" * good["size"])
    assert "isn't used any more" in tried([good], whole)


def test_wrong_words(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    for flag, value, says in (
        ("--cache-to", "type=gha", "type=gha of --cache-to is not supported"),
        ("--cache-to", "type=registry", "write type=registry,ref=NAME"),
        ("--cache-to", "type=local,dest=x,mode=some", "mode is min or max"),
        ("--cache-to", "type=local,dest=x,compression=zstd", "compression=zstd of --cache-to is not supported"),
        ("--cache-from", "type=local", "write type=local,src=DIRECTORY"),
        ("--cache-from", "type=s3,bucket=x", "type=s3 of --cache-from is not supported"),
    ):
        pulled.fails("build", flag, value, str(context), code=1, says=says)
    pulled("build", "-q", "--cache-to", "type=local,dest=/proc/none,ignore-error=true", str(context))
    pulled.fails("build", "-q", "--cache-to", "type=local,dest=/proc/none", str(context), code=1, says="/proc/none")
