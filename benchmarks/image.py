"""Two images made of what is on the machine, pushed to a registry on loopback by its HTTP API."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import random
import shutil
import tarfile
import urllib.request
from collections.abc import Iterator

_OCI = "application/vnd.oci.image"
_APPLETS = ("sh", "true", "sleep", "cat")


def small() -> bytes:
    """A layer with a static busybox. Raises FileNotFoundError where there is none."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise FileNotFoundError("busybox (Debian: busybox-static)")
    with open(busybox, "rb") as file:
        program = file.read()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "bin/busybox", program, 0o755)
        for applet in _APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


def large(files: int = 7500, megabytes: int = 100) -> bytes:
    """A layer with many files, half as large when compressed; the same bytes each time."""
    dice = random.Random(1)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(files):
            noise = dice.randbytes(megabytes * 500_000 // files)
            _add(tar, f"data/{number % 97:02}/{number}", noise + noise[::-1].hex().encode()[: len(noise)], 0o644)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))


def push(registry: str, name: str, *layers: bytes) -> str:
    """Push an image of these layers as `registry/name:latest`; gives its reference."""
    diffs = [_digest(layer) for layer in layers]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    config = json.dumps(
        {
            "architecture": machine,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diffs},
            "history": [{"created_by": "benchmark"} for _ in diffs],  # buildah counts
        }
    ).encode()
    squeezed = [gzip.compress(layer, 6, mtime=0) for layer in layers]
    for blob in (config, *squeezed):
        _upload(registry, name, blob)
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{_OCI}.manifest.v1+json",
        "config": _descriptor(f"{_OCI}.config.v1+json", config),
        "layers": [_descriptor(f"{_OCI}.layer.v1.tar+gzip", layer) for layer in squeezed],
    }
    url = f"http://{registry}/v2/{name}/manifests/latest"
    _ask("PUT", url, json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")
    return f"{registry}/{name}:latest"


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _upload(registry: str, name: str, blob: bytes) -> None:
    headers = dict(_ask("POST", f"http://{registry}/v2/{name}/blobs/uploads/", b""))
    where = headers["Location"]
    _ask("PUT", f"{where}{'&' if '?' in where else '?'}digest={_digest(blob)}", blob, "application/octet-stream")


def _ask(method: str, url: str, data: bytes, kind: str = "") -> Iterator[tuple[str, str]]:
    asked = urllib.request.Request(url, data, {"Content-Type": kind} if kind else {}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
        return iter(answer.getheaders())
