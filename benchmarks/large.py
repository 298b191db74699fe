"""Images of chosen size and number of entries, made of the machine's own files and pushed by the registry's HTTP API.

The same machine gives the same images: files are drawn with a fixed seed, so that the mean size is the wanted one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import shutil
import stat
import subprocess
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import image

_OCI = "application/vnd.oci.image"
#: How the entries are spread over layers: a distribution, packages on top, an application.
_SHARES = (0.6, 0.3, 0.1)


@dataclass(frozen=True, slots=True)
class Blob:
    """A layer as the registry has it."""

    digest: str
    size: int
    diff_id: str


@dataclass(frozen=True, slots=True)
class Large:
    """An image in the registry. `entries` and `unpacked` (bytes) are what it came to."""

    title: str
    reference: str
    kind: str
    layers: tuple[Blob, ...]
    entries: int
    unpacked: int

    @property
    def packed(self) -> int:
        """Bytes of all layers in the registry."""
        return sum(layer.size for layer in self.layers)


def choose(entries: int, size: int) -> list[tuple[str, int]]:
    """Paths below / with their sizes: so many, about `size` bytes together, in the order of a walk."""
    found = list(_walk("/usr"))
    random.Random(1).shuffle(found)
    taken: list[tuple[str, int]] = []
    total = 0
    for path, each in found:
        # Never far above the mean that is wanted: large files wait until there are enough small ones.
        if total + each <= (len(taken) + 1) * size / entries * 1.02 + size * 0.02 and len(taken) < entries:
            taken.append((path, each))
            total += each
    return sorted(taken)


def _walk(top: str) -> Iterator[tuple[str, int]]:
    for directory, folders, names in os.walk(top):
        for name in [*names, *folders]:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                yield path[1:], status.st_size
            elif stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode):
                yield path[1:], 0


def push(registry: str, home: Path, title: str, entries: int, size: int, kind: str) -> Large:
    """Make an image and push it as `registry/NAME:latest`. `kind` is gzip or zstd. `size` is unpacked, in bytes."""
    chosen = choose(entries, size)
    random.Random(2).shuffle(chosen)
    name = f"large{entries}{kind}"
    layers = [_busybox(registry, name, home, kind)]
    at = 0
    for share in _SHARES:
        part = chosen[at : at + round(len(chosen) * share)]
        at += len(part)
        layers.append(_layer(registry, name, home, sorted(path for path, _ in part), kind))
    _document(registry, name, layers, kind)
    unpacked = sum(each for _, each in chosen)
    return Large(title, f"{registry}/{name}:latest", kind, tuple(layers), len(chosen), unpacked)


def _busybox(registry: str, name: str, home: Path, kind: str) -> Blob:
    tree = home / "small"
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "bin").mkdir(parents=True)
    program = shutil.which("busybox")
    if program is None:
        raise FileNotFoundError("busybox (Debian: busybox-static)")
    shutil.copy(program, tree / "bin" / "busybox")
    for applet in ("sh", "true"):
        (tree / "bin" / applet).symlink_to("busybox")
    return _layer(registry, name, home, ["bin"], kind, base=tree)


def _layer(registry: str, name: str, home: Path, paths: list[str], kind: str, base: Path = Path("/")) -> Blob:
    listed, packed = home / "list", home / "layer"
    listed.write_bytes(b"\0".join(os.fsencode(path) for path in paths))
    recursion = "--no-recursion" if base == Path("/") else "--recursion"
    tar = ["tar", "-c", "--format=pax", recursion, "--null", "-C", str(base), "-T", str(listed)]
    squeeze = ["zstd", "-q", "-3", "-T0"] if kind == "zstd" else ["pigz", "-6"]
    diff = hashlib.sha256()
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
    if source.returncode or squeezer.returncode:
        raise RuntimeError(f"a layer couldn't be packed: {source.returncode}, {squeezer.returncode}")
    with packed.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    size = packed.stat().st_size
    _upload(registry, name, packed, digest)
    packed.unlink()
    return Blob(digest, size, f"sha256:{diff.hexdigest()}")


def _upload(registry: str, name: str, path: Path, digest: str) -> None:
    headers = dict(image._ask("POST", f"http://{registry}/v2/{name}/blobs/uploads/", b""))
    where = headers["Location"]
    url = f"{where}{'&' if '?' in where else '?'}digest={urllib.parse.quote(digest)}"
    subprocess.run(["curl", "-sS", "--fail", "--noproxy", "*", "-T", str(path), url], check=True)


def _document(registry: str, name: str, layers: list[Blob], kind: str) -> None:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    ).encode()
    image._upload(registry, name, config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": image._descriptor(f"{_OCI}.config.v1+json", config),
        "layers": [
            {"mediaType": f"{_OCI}.layer.v1.tar+{kind}", "digest": layer.digest, "size": layer.size} for layer in layers
        ],
    }
    url = f"http://{registry}/v2/{name}/manifests/latest"
    image._ask("PUT", url, json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")


def many(path: Path, count: int) -> None:
    """An archive of `docker save` with so many images, each with a configuration and a layer of its own."""
    import io
    import tarfile

    listed = []
    with tarfile.open(path, "w") as out:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))

        for number in range(count):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                entry = tarfile.TarInfo(f"file{number}")
                entry.size = 5
                tar.addfile(entry, io.BytesIO(b"hello"))
            layer = buffer.getvalue()
            config = json.dumps(
                {
                    "architecture": "amd64",
                    "os": "linux",
                    "created": "2026-01-01T00:00:00Z",
                    "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "Labels": {"number": str(number)}},
                    "rootfs": {"type": "layers", "diff_ids": [image._digest(layer)]},
                    "history": [{"created": "2026-01-01T00:00:00Z", "created_by": f"COPY file{number} /"}],
                }
            ).encode()
            name = f"{image._digest(config)[7:]}.json"
            add(name, config)
            add(f"{number}/layer.tar", layer)
            listed.append({"Config": name, "RepoTags": [f"many/image{number}:1"], "Layers": [f"{number}/layer.tar"]})
        add("manifest.json", json.dumps(listed).encode())
