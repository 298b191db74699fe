"""The content store: `blobs/<algorithm>/<hex>` beneath an `oci-layout` and an `index.json`.

A blob appears under its name when it is complete and checked, by rename, never before. Bytes that are still coming
lie in `ingest/`, named by digest and locked by the process that fetches them; what a killed process left there is
taken up by the next one (OCI image spec, image-layout.md).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import trio

from scow.content.ingest import Ingest
from scow.errors import Corrupt, Exhausted, Internal, Invalid, NotFound
from scow.model.descriptor import Descriptor, Document
from scow.model.digest import Digest

_LOCK_RETRY: Final = 0.05
#: What a fetched blob is called while it comes in.
_INGEST: Final = re.compile(r"sha(256|512)-[0-9a-f]+")


class ContentStore:
    """One engine's blobs. Any number of processes may use it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Make the layout's directories and its marker file. Raises Exhausted."""
        if (self.path / "oci-layout").exists():
            return
        with disk_errors(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "blobs").mkdir(mode=0o700, exist_ok=True)
            (self.path / "ingest").mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "blobs" / "sha256").mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (self.path / "index.json").exists():
                replace_file(self.path / "index.json", b'{"schemaVersion":2,"manifests":[]}')
            replace_file(self.path / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')

    def blob(self, digest: Digest) -> Path:
        """Where a blob lies, or would lie."""
        return self.path / "blobs" / digest.algorithm / digest.hex

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob is there, with the size that it should have."""
        try:
            return self.blob(descriptor.digest).stat().st_size == descriptor.size
        except OSError:
            return False

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob's bytes, checked. Raises NotFound, Corrupt."""
        try:
            with self.blob(digest).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in the store") from None
        if len(data) > limit:
            raise Corrupt(f"blob {digest} is larger than {limit} bytes")
        if Digest.of(data, digest.algorithm) != digest:
            raise Corrupt(f"blob {digest} in the store is damaged", hint="pull the image again")
        return data

    def put(self, document: Document) -> None:
        """Store a manifest, an index or a configuration. Raises Exhausted."""
        target = self.blob(document.descriptor.digest)
        if not self.has(document.descriptor):
            with disk_errors(self.path):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_file(target, document.data)

    @asynccontextmanager
    async def ingest(self, descriptor: Descriptor) -> AsyncIterator[Ingest]:
        """Take in a blob; the body fetches into it and commits it.

        Waits while another process fetches the same blob; then `Ingest.present` may be true. Left without a
        commit, the bytes stay for the next try. Raises Exhausted.
        """
        digest = descriptor.digest
        partial = self.path / "ingest" / f"{digest.algorithm}-{digest.hex}"
        with disk_errors(self.path):
            fd = await _locked(partial)
        ingest = Ingest(descriptor, fd, partial, self.blob(digest))
        try:
            if self.has(descriptor):
                ingest.discard()
            else:
                await ingest.resume()
            yield ingest
        except BaseException as error:
            ingest.fail(error)
            raise
        finally:
            ingest.close()

    def blobs(self) -> set[Digest]:
        """All complete blobs."""
        found = set()
        for path in self.path.glob("blobs/*/*"):
            with contextlib.suppress(Invalid):
                found.add(Digest(path.parent.name, path.name))
        return found

    def partial(self) -> list[Path]:
        """What isn't complete: blobs on their way in, and files that a killed process was writing."""
        return [*self.path.glob("ingest/*"), *self.path.glob("blobs/*/.*.tmp"), *self.path.glob(".*.tmp")]

    def abandoned(self) -> list[Path]:
        """Of those, what nobody goes on with: all but the blobs that are being fetched, which are named by digest.

        To be asked while nobody brings anything in.
        """
        return [path for path in self.partial() if path.parent.name != "ingest" or not _INGEST.fullmatch(path.name)]

    def write_index(self, manifests: Callable[[], Iterable[dict[str, object]]]) -> None:
        """Write index.json: what the names in the state point at, as `manifests()` gives them. Raises Exhausted.

        One at a time, so that nobody writes what was true before another one wrote. Blocks for that long.
        """
        with disk_errors(self.path), self._index_locked():
            data = msgspec.json.encode({"schemaVersion": 2, "manifests": list(manifests())})
            path = self.path / "index.json"
            # To wait for the disk takes longer than all the rest of a build in which nothing has changed.
            if not path.exists() or path.read_bytes() != data:
                replace_file(path, data)

    @contextlib.contextmanager
    def _index_locked(self) -> Iterator[None]:
        fd = os.open(self.path / ".index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            # Explicitly: a child forked meanwhile would keep the lock until it ends.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


async def _locked(partial: Path) -> int:
    """Open a partial file and lock it against other processes, waiting as long as it takes."""
    partial.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        fd = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it may have renamed or removed the file that we opened.
            if _same_file(fd, partial):
                return fd
        except BlockingIOError:
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        await trio.sleep(_LOCK_RETRY)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.fstat(fd).st_ino == os.stat(path).st_ino
    except FileNotFoundError:
        return False


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that is seen whole or not at all, also after a power cut. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into errors with a way out."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, path) from error


def disk_error(error: OSError, path: Path) -> Exception:
    """The ScowError for a failed write below `path`."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Exhausted(f"the disk that holds {path} is full", hint="make room, then try again: what came is kept")
    if error.errno == errno.EROFS:
        return Exhausted(f"{path} is on a read-only file system", hint="choose another directory with --root")
    return Internal(f"{path}: {error.strerror or error}")
