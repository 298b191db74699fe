"""A layer written into the content store: an archive that is hashed on its way to the disk, and named when it is whole.

Not compressed: packing costs more than all the rest of a build step, and who pushes an image may still do it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from scow.content.store import disk_errors
from scow.engine.core import Core
from scow.layers.writer import Member, TarWriter, Write
from scow.model.descriptor import OCI_LAYER, Descriptor
from scow.model.digest import Digest

_BUFFER: Final = 1 << 20
_SECOND: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer in the store: its blob, and the digest of what is in it."""

    descriptor: Descriptor
    diff_id: Digest


def write_layer(
    core: Core, write: Callable[[TarWriter], None], clamp: int | None, announce: Callable[[Digest], None]
) -> Layer:
    """Let `write` fill an archive; blocks. No file in it is newer than `clamp` (seconds). Raises Exhausted.

    `announce` is told the digest before there is a blob of that name.
    """
    path = core.content.path / "ingest" / f"layer-{os.getpid()}-{secrets.token_hex(8)}"
    with disk_errors(core.content.path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        out = _Hashed(core, fd)
        writer = TarWriter(out.write) if clamp is None else _Clamped(out.write, clamp)
        write(writer)
        writer.end()
        out.flush()
        digest = Digest("sha256", out.digest.hexdigest())
        target = core.content.blob(digest)
        with disk_errors(core.content.path):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.fdatasync(fd)
            announce(digest)
            os.rename(path, target)
        return Layer(Descriptor(OCI_LAYER, digest, out.size), digest)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)


class _Hashed:
    """Gathers small writes, hashes and stores large ones."""

    def __init__(self, core: Core, fd: int) -> None:
        self._core = core
        self._fd = fd
        self._buffer = bytearray()
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self.flush()

    def flush(self) -> None:
        piece, self._buffer = self._buffer, bytearray()
        self.digest.update(piece)
        self.size += len(piece)
        view = memoryview(piece)
        with disk_errors(self._core.content.path):
            while view:
                view = view[os.write(self._fd, view) :]


class _Clamped(TarWriter):
    """No file is newer than a moment (reproducible-builds.org, SOURCE_DATE_EPOCH)."""

    def __init__(self, write: Write, clamp: int) -> None:
        super().__init__(write)
        self._most = clamp * _SECOND

    def member(self, member: Member, data: Iterable[bytes] = ()) -> None:
        super().member(replace(member, mtime=min(member.mtime, self._most)), data)
