"""One layer from its blob into one EROFS image: inflate, hash, write, compare with the diff ID."""

from __future__ import annotations

import hashlib
from typing import Final

from scow.layers.apply import Check
from scow.layers.erofs.image import Image
from scow.layers.erofs.layer import LayerWriter
from scow.layers.erofs.output import FileOutput
from scow.layers.limits import Limits
from scow.layers.lower import LowerTree
from scow.layers.stream import LayerStream
from scow.layers.tar import TarReader
from scow.model.digest import Digest
from scow.model.storage import Blob

_UUID: Final = b"scow erofs "


def write_image(
    blob: Blob,
    diff_id: Digest,
    chain_id: Digest,
    fd: int,
    *,
    lower: LowerTree | None,
    check: Check,
    limits: Limits,
    eager: bool,
) -> None:
    """Write into the empty file `fd`; blocks, so call it in a worker thread. The same chain ID gives the same bytes.

    The caller removes what is there when this fails. Raises Corrupt (archive, digest), Exhausted (limits, disk), and
    what the blob's reader or `check` raises.
    """
    writer = LayerWriter(Image(FileOutput(fd, eager=eager)), lower, limits)
    with LayerStream(blob.open(), blob.descriptor.size, diff_id.algorithm, check) as stream:
        reader = TarReader(stream.chunk)
        for entry in reader:
            writer.add(entry, reader.data)
        reader.drain()
        stream.verify(diff_id)
    writer.finish(image_uuid(chain_id))


def write_empty_image(fd: int) -> None:
    """An image of nothing but a root directory. Raises OSError."""
    LayerWriter(Image(FileOutput(fd, eager=False)), None, Limits()).finish(bytes(16))


def image_uuid(chain_id: Digest) -> bytes:
    """16 bytes, a version 8 UUID (RFC 9562, 5.8).

    Of the chain ID, not the diff ID: an image holds what its layer hides and uses of those below, and overlayfs wants
    different layers of one stack (empty ones come twice) to have different UUIDs.
    """
    raw = bytearray(hashlib.sha256(_UUID + str(chain_id).encode()).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
