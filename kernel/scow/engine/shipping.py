"""What a build sends out beside its image here, and takes in beside its bases: archives, layouts, directories, caches.

An image is composed of layers in the store; nothing is copied before it goes out. What comes in is checked blob by
blob, as a pulled image is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import trio

from scow.engine import publish
from scow.engine.copying import pack_all, unpack_into
from scow.engine.core import Core
from scow.engine.layering import Layer
from scow.engine.neighbours import destination
from scow.engine.ocinames import oci_name
from scow.errors import Corrupt, Invalid, NotFound, ScowError
from scow.layers.codecs import plain
from scow.model.descriptor import (
    HOST_LAYER,
    OCI_CONFIG,
    OCI_MANIFEST,
    TAR_LAYERS,
    Descriptor,
    Document,
)
from scow.model.digest import Digest
from scow.model.fetching import Source
from scow.model.image import CONFIG_MAX, Manifest, parse_config, parse_document
from scow.model.platform import Platform
from scow.model.reference import Reference


@dataclass(frozen=True, slots=True)
class Composed:
    """An image as its documents and layers, lowest first."""

    config: Document
    manifest: Document
    layers: tuple[Layer, ...]


@dataclass(frozen=True, slots=True)
class Remote:
    """An image that lies somewhere else: its configuration as JSON, its layers, and where they come from."""

    config: dict[str, Any]
    layers: tuple[Layer, ...]
    source: Source


def compose(
    layers: Sequence[Layer], config: Mapping[str, Any], annotations: Mapping[str, str] | None = None
) -> Composed:
    """The documents of an image; pure. `config` is its configuration without its layers."""
    data = msgspec.json.encode({**config, "rootfs": {"type": "layers", "diff_ids": [str(x.diff_id) for x in layers]}})
    above = Document(Descriptor(OCI_CONFIG, Digest.of(data), len(data)), data)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _plain(above.descriptor),
        "layers": [_plain(layer.descriptor) for layer in layers],
    }
    if annotations:
        manifest["annotations"] = dict(sorted(annotations.items()))
    text = msgspec.json.encode(manifest)
    return Composed(above, Document(Descriptor(OCI_MANIFEST, Digest.of(text), len(text)), text), tuple(layers))


def as_oci(descriptor: Descriptor) -> Descriptor:
    """A layer's descriptor under its OCI name."""
    return Descriptor(oci_name(descriptor.media_type), descriptor.digest, descriptor.size)


async def send(core: Core, image: Composed, place: Reference, names: Sequence[Reference]) -> None:
    """Write an image to where a reference says, under all these names there. Raises as `Destination`, NotFound."""
    for layer in image.layers:
        if not core.content.has(layer.descriptor):
            raise NotFound(f"blob {layer.descriptor.digest} is not in the store", hint="build again")
    core.content.put(image.config)
    blobs = {each.digest: each for each in (*(layer.descriptor for layer in image.layers), image.config.descriptor)}
    cargo = publish.Cargo(blobs, [image.manifest])
    async with destination(core, place) as (plugin, held):
        for name in names or (None,):
            await publish.send(core, plugin, held, cargo, name, lambda _: None)


async def look(core: Core, reference: Reference, platform: Platform) -> Remote:
    """What an image elsewhere says; its layers stay there. Raises as resolve and fetch, Corrupt."""
    resolved = await core.stages.resolve(reference, platform)
    manifest = parse_document(resolved.manifest.data, resolved.manifest.descriptor.media_type)
    if not isinstance(manifest, Manifest):
        raise Corrupt(f"{reference}: an index came where a manifest was asked for")
    if any(layer.media_type == HOST_LAYER for layer in manifest.layers):
        raise Corrupt(f"{reference} claims this machine's root directory as a layer")
    if manifest.config.size > CONFIG_MAX:
        raise Corrupt(f"{reference}: its configuration is larger than {CONFIG_MAX} bytes")
    await fetch(core, resolved.source, manifest.config)
    data = core.content.read(manifest.config.digest, CONFIG_MAX)
    config = parse_config(data)
    if len(config.diff_ids) != len(manifest.layers):
        raise Corrupt(f"{reference} names {len(config.diff_ids)} diff IDs for {len(manifest.layers)} layers")
    layers = tuple(Layer(as_oci(blob), diff_id) for blob, diff_id in zip(manifest.layers, config.diff_ids, strict=True))
    return Remote(msgspec.json.decode(data, type=dict[str, Any]), layers, resolved.source)


async def fetch(core: Core, source: Source, descriptor: Descriptor) -> None:
    """A blob into the store, checked against its digest and size. Raises as fetch, Corrupt."""
    async with core.content.ingest(descriptor) as ingest:
        if ingest.present:
            return
        if descriptor.data is not None:
            await ingest.restart()
            await ingest.write(descriptor.data)
        elif ingest.offset < descriptor.size or descriptor.size == 0:
            await core.stages.fetch(source, descriptor, ingest)
        await ingest.commit()


async def fetch_layer(core: Core, source: Source, layer: Layer) -> None:
    """A layer into the store, checked against its diff ID, too: it may be unpacked here already, from another blob."""
    blob = layer.descriptor
    if TAR_LAYERS.get(blob.media_type) == "none" and blob.digest != layer.diff_id:
        raise Corrupt(f"layer {blob.digest} is not packed, and is said to hold {layer.diff_id}")
    if blob.media_type not in TAR_LAYERS:
        raise Corrupt(f"layer {blob.digest} has the media type {blob.media_type}, which scow can't unpack")
    await fetch(core, source, blob)
    if blob.digest != layer.diff_id:
        await trio.to_thread.run_sync(_check_content, core, layer)


def _check_content(core: Core, layer: Layer) -> None:
    found = hashlib.new(layer.diff_id.algorithm)
    with core.content.blob(layer.descriptor.digest).open("rb") as file:
        for piece in plain(file):
            trio.from_thread.check_cancelled()
            found.update(piece)
    if found.hexdigest() != layer.diff_id.hex:
        raise Corrupt(f"layer {layer.descriptor.digest} does not hold {layer.diff_id}")


async def lay_out(root: int, target: Path) -> None:
    """Put all that is beneath the descriptor `root` into a directory, which is made; all of it belongs to us there.

    What is there already stays unless something of its name comes; its links are not followed out of it. Raises
    Invalid, Denied, Exhausted.
    """
    try:
        await trio.to_thread.run_sync(lambda: target.mkdir(parents=True, exist_ok=True))
        there = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Invalid(f"{target} can't be written to: {error.strerror}") from None
    source, sink = os.pipe()
    problems: list[ScowError] = []

    async def put(act: Any, fd: int) -> None:
        try:
            await trio.to_thread.run_sync(act)
        except ScowError as error:
            problems.append(error)
        finally:
            os.close(fd)

    try:
        async with trio.open_nursery() as nursery:
            # Who fails closes his end, and so ends the other one.
            nursery.start_soon(put, lambda: unpack_into(there, "/", source, owners=False), source)
            nursery.start_soon(put, lambda: pack_all(root, sink), sink)
    finally:
        os.close(there)
    if problems:
        raise problems[0]


async def pack(root: int, target: Path) -> None:
    """All that is beneath `root` as a tar archive, in a file that gets its name last. Raises Exhausted, Denied, …"""
    await trio.to_thread.run_sync(_pack, root, target)


def _pack(root: int, target: Path) -> None:
    fresh = not target.exists() or target.is_file()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp") if fresh else target
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if fresh else 0), 0o666)
        try:
            pack_all(root, fd)
        finally:
            os.close(fd)
        if fresh:
            os.replace(temporary, target)
    except FileNotFoundError:
        raise NotFound(f"{target} can't be written: its directory isn't there") from None
    except OSError as error:
        raise Invalid(f"{target} can't be written: {error.strerror}") from None
    finally:
        if fresh:
            temporary.unlink(missing_ok=True)


def _plain(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
