"""import: an archive of a file system as an image of one layer, kept uncompressed, with settings given by hand."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Sequence
from typing import BinaryIO, Final

import msgspec
import trio

from scow.content.store import disk_errors
from scow.engine import images
from scow.engine.core import Core
from scow.engine.instructions import apply_instructions
from scow.engine.types import ImageInfo
from scow.errors import Invalid, Unsupported
from scow.layers.codecs import plain
from scow.model.descriptor import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, Document
from scow.model.digest import Digest
from scow.model.image import Manifest, parse_config, parse_document
from scow.model.platform import Platform
from scow.model.reference import Named, parse_reference
from scow.state import images as rows

#: What tar can't be read from without more: bzip2, xz.
_OTHERS: Final = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


async def import_image(
    core: Core,
    source: BinaryIO,
    name: str | None,
    changes: Sequence[str],
    message: str,
    platform: Platform,
    driver: str,
) -> ImageInfo:
    """Take an archive in and unpack it. Raises Invalid (the name, the changes), Corrupt, Unsupported, Exhausted."""
    reference = parse_reference(name, core.registry.transports()) if name else None
    if reference is not None and (not isinstance(reference, Named) or reference.tag is None):
        raise Invalid(f"{name!r} can't be an image's new name", hint="write name:tag")
    settings = apply_instructions({}, changes)
    layer = await trio.to_thread.run_sync(_take_in, core, source)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    document: dict[str, object] = {
        "created": created,
        "os": platform.os,
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [str(layer.digest)]},
        "history": [{"created": created, "comment": message or "Imported from -"}],
    }
    config = _document(OCI_CONFIG, document)
    manifest = _document(
        OCI_MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _entry(config.descriptor),
            "layers": [_entry(layer)],
        },
    )
    parsed = parse_document(manifest.data, OCI_MANIFEST)
    assert isinstance(parsed, Manifest)
    for each in (config, manifest):
        core.content.put(each)
    # Unpacked at once: what is no archive is refused before it has a name.
    try:
        await images.unpack_stored(core, parsed, parse_config(config.data), driver)
    except BaseException:
        gone = (layer.digest, config.descriptor.digest, manifest.descriptor.digest)
        rows.forget(core.database, (), (), [*(("blob", each) for each in gone), ("layer", layer.digest)])
        raise
    digest = manifest.descriptor.digest
    row = rows.ImageRow(digest, config.descriptor.digest, digest, OCI_MANIFEST, layer.size, time.time())
    rows.save_image(core.database, row, str(reference) if reference is not None else None, None)
    images.write_index(core)
    core.events.emit("image", "import", str(row.config), name=reference.familiar if reference else str(row.config))
    return images.info(core, digest)


def _document(media_type: str, shape: dict[str, object]) -> Document:
    data = msgspec.json.encode(shape)
    return Document(Descriptor(media_type, Digest.of(data), len(data)), data)


def _entry(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}


def _take_in(core: Core, source: BinaryIO) -> Descriptor:
    """The archive's plain bytes as a blob of the store. Left early, nothing stays."""
    path = core.content.path / "ingest" / f"import-{os.getpid()}-{secrets.token_hex(8)}"
    hasher, size = hashlib.sha256(), 0
    try:
        with disk_errors(core.content.path), path.open("xb") as file:
            for piece in plain(source):
                trio.from_thread.check_cancelled()
                if size == 0:
                    _check_head(piece)
                hasher.update(piece)
                size += file.write(piece)
            if size == 0:
                raise Invalid("there is nothing to import: the input is empty")
            file.flush()
            os.fdatasync(file.fileno())
            os.fchmod(file.fileno(), 0o600)
            digest = Digest("sha256", hasher.hexdigest())
            target = core.content.blob(digest)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(path, target)
    finally:
        path.unlink(missing_ok=True)
    return Descriptor(OCI_LAYER, digest, size)


def _check_head(head: bytes) -> None:
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise Unsupported(
                f"the archive is compressed with {name}", hint="tar, gzip and zstd are read; unpack it first"
            )
