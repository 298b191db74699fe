"""Images made from what the machine has, pushed to a registry on loopback with skopeo."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BUSYBOX = "/bin/busybox"
APPLETS = """
sh ls cat echo true false sleep ps id env hostname ip wget httpd mount umount grep sed head tail wc touch mkdir rm ln
readlink stat find kill nc stty test printf date dd yes seq mknod chmod chown tee tr cut sort uname mv cp md5sum du df
"""


def busybox_tree(root: Path) -> Path:
    """A root file system of one static program and its links."""
    for name in ("bin", "etc", "tmp", "root", "var", "www"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, root / "bin" / "busybox")
    for applet in APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/www:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nwww:x:33:\nextra:x:44:www\n")
    (root / "www" / "index.html").write_text("hello from busybox\n")
    return root


def layer_of(root: Path, names: Sequence[str] = (".",), *, recursive: bool = True) -> bytes:
    """A tar of a tree."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            tar.add(root / name, arcname=name, recursive=recursive)
    return buffer.getvalue()


def write_layout(directory: Path, layers: Sequence[bytes], config: dict[str, Any], name: str = "latest") -> Path:
    """An OCI image layout with one image."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    oci = "application/vnd.oci.image"
    packed = [{"mediaType": f"{oci}.layer.v1.tar+gzip", **put(gzip.compress(layer, 1, mtime=0))} for layer in layers]
    document = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{oci}.manifest.v1+json",
        "config": {"mediaType": f"{oci}.config.v1+json", **put(json.dumps(document).encode())},
        "layers": packed,
    }
    entry = {"mediaType": f"{oci}.manifest.v1+json", **put(json.dumps(manifest).encode())}
    entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return directory


def push(layout: Path, registry: str, name: str, *options: str) -> None:
    """Copy an image of a layout into a registry."""
    copy = ["skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", *options]
    subprocess.run([*copy, f"oci:{layout}:latest", f"docker://{registry}/{name}"], check=True)
