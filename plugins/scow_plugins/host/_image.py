"""An image made up on the spot: one layer that stands for `/`, a configuration, a manifest.

The layer's bytes are a secret of this installation. An image from elsewhere can say that it has a layer of the host's
media type, but it can't name this one, so pulling an image never lays the machine bare.
"""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Final

import msgspec

from scow.api import (
    HOST_LAYER,
    OCI_CONFIG,
    OCI_MANIFEST,
    Corrupt,
    Descriptor,
    Digest,
    Document,
    Invalid,
    Located,
    NotFound,
    Platform,
    PluginContext,
    Resolved,
    Sink,
    Snapshot,
    Source,
    UnpackRequest,
    Unsupported,
)

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TITLE: Final = "org.opencontainers.image.title"
_VERSION: Final = "org.opencontainers.image.version"


async def resolve(context: PluginContext, reference: Located, platform: Platform) -> Resolved:
    """The manifest of this machine. Raises Invalid, Unsupported."""
    if reference.rest:
        raise Invalid(
            f"{reference} is not an image: nothing may follow the colon",
            hint="`host:` is this machine; mount a directory with -v",
        )
    here = Platform.host()
    if here.rank(platform) is None:
        raise Unsupported(f"host: is {here}, not {platform}")
    layer = _layer(context)
    config = _config(here, Digest.of(layer))
    data = _manifest(config, layer)
    document = Document(Descriptor(OCI_MANIFEST, Digest.of(data), len(data)), data)
    return Resolved(reference, document, Source(context.name, ""))


async def fetch(context: PluginContext, descriptor: Descriptor, sink: Sink) -> None:
    """Give the configuration or the layer's few bytes. Raises NotFound."""
    layer = _layer(context)
    for blob in (_config(Platform.host(), Digest.of(layer)), layer):
        if Digest.of(blob) == descriptor.digest:
            await sink.write(blob[sink.offset :])
            return
    raise NotFound(f"host: has no blob {descriptor.digest}", hint="the machine has changed meanwhile; try again")


async def unpack(context: PluginContext, request: UnpackRequest) -> Snapshot:
    """The root directory itself. Raises Corrupt for a layer that only pretends to be it, Unsupported."""
    mine = Digest.of(_layer(context))
    if request.diff_id != mine or request.chain_id != mine or request.parents:
        raise Corrupt(
            f"layer {request.layer.digest} claims to be this machine's root file system, but isn't",
            hint="don't run this image: it tries to read the host",
        )
    if request.driver == "native":
        raise Unsupported("host: can't be had as a plain copy of the machine", hint="host: needs --storage overlay")
    return Snapshot(context.name, mine, Path("/"))


def known_layer(context: PluginContext) -> bytes | None:
    """The layer's bytes if `host:` was ever used here, else None."""
    try:
        return (context.state_dir / "layer").read_bytes() or None
    except FileNotFoundError:
        return None


def _layer(context: PluginContext) -> bytes:
    """The layer's bytes, made at first use; of two processes at once the first wins."""
    if (layer := known_layer(context)) is not None:
        return layer
    context.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = context.state_dir / f"layer.{os.getpid()}.{secrets.token_hex(4)}"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, f"scow host root file system {secrets.token_hex(32)}\n".encode())
    finally:
        os.close(fd)
    try:
        os.link(new, context.state_dir / "layer")
    except FileExistsError:
        pass
    finally:
        os.unlink(new)
    return (context.state_dir / "layer").read_bytes()


def _config(platform: Platform, diff_id: Digest) -> bytes:
    shell = "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"
    config = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Env": [_PATH], "Cmd": [shell], "Labels": {_TITLE: "host", _VERSION: _release()}},
        "rootfs": {"type": "layers", "diff_ids": [str(diff_id)]},
        "history": [{"created_by": "host:", "comment": "this machine's root directory"}],
    }
    return msgspec.json.encode(config, order="sorted")


def _release() -> str:
    """What the machine calls itself (os-release(5))."""
    try:
        lines = Path("/etc/os-release").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition("=")[2].strip("\"'") for line in lines if line.startswith("PRETTY_NAME=")), "")


def _manifest(config: bytes, layer: bytes) -> bytes:
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _described(OCI_CONFIG, config),
        "layers": [_described(HOST_LAYER, layer)],
    }
    return msgspec.json.encode(manifest)


def _described(media_type: str, data: bytes) -> dict[str, object]:
    """A descriptor that carries its content inline."""
    return {
        "mediaType": media_type,
        "digest": str(Digest.of(data)),
        "size": len(data),
        "data": base64.b64encode(data).decode(),
    }
