"""Images written into a layout's directory, or into an archive that is a layout too (with Docker's list beside it).

A directory gets its index last, an archive its name: what was left half-way is never taken for an image. The next
write to the same place clears it away.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import msgspec
import trio

from scow.api import (
    Corrupt,
    Denied,
    Descriptor,
    Destination,
    Digest,
    Document,
    Exhausted,
    Invalid,
    Located,
    Manifest,
    Named,
    NotFound,
    Reference,
    Unsupported,
    parse_document,
)

from ._layout import DOCUMENT_MAX, IMAGE_NAME, REF_NAME, blob_name
from ._place import Place, parse_place
from ._temporary import clear, final_name, replacing

_PIECE: Final = 1024 * 1024
_MARKER: Final = b'{"imageLayoutVersion":"1.0.0"}'
#: What lies in a layout, and beneath its `blobs/*/`.
_OURS: Final = re.compile(r"oci-layout|index\.json")
_BLOB: Final = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")
Report = Callable[[int], None]


def publish(reference: Located) -> AbstractAsyncContextManager[Destination]:
    """The place that a reference names, open to write. Raises Invalid."""
    place = parse_place(reference)
    if place.position is not None:
        raise Invalid(f"{reference} can't be written to: {place.name!r} is a position")
    return _directory(place) if place.transport == "oci" else _archive(place)


class _Listing:
    """The documents of one or more images, and what index.json and manifest.json say of them."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.entries: list[dict[str, Any]] = []
        self.items: dict[Digest, dict[str, Any]] = {}
        self.sent: set[Digest] = set()

    def add(self, document: Document, name: Reference | None) -> None:
        """Take note of a document that was written."""
        parsed = parse_document(document.data, document.descriptor.media_type)
        if isinstance(parsed, Manifest):
            self._item(document, parsed, name)
        else:
            # What an index names isn't listed beside it; it came first, without a name.
            children = {str(child.digest) for child in parsed.entries}
            self.entries = [e for e in self.entries if "annotations" in e or e["digest"] not in children]
        self.entries.append(_entry(document.descriptor, self.place, name))

    def _item(self, document: Document, manifest: Manifest, name: Reference | None) -> None:
        missing = [layer.digest for layer in manifest.layers if layer.digest not in self.sent]
        if missing and self.place.transport == "docker-archive":
            raise Unsupported(f"layer {missing[0]} lies elsewhere, and docker's archives need all layers")
        item = self.items.setdefault(
            document.descriptor.digest,
            {
                "Config": blob_name(manifest.config.digest),
                "RepoTags": [],
                "Layers": [blob_name(layer.digest) for layer in manifest.layers],
            },
        )
        tag = name.familiar if isinstance(name, Named) else self.place.name if name is not None else None
        if tag and tag not in item["RepoTags"]:
            item["RepoTags"].append(tag)


def _entry(descriptor: Descriptor, place: Place, name: Reference | None) -> dict[str, Any]:
    annotations: dict[str, str] = {}
    if isinstance(name, Named):
        annotations = {REF_NAME: str(name), IMAGE_NAME: str(name)}
    elif name is not None and place.name is not None:
        annotations = {REF_NAME: place.name}
    entry: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": str(descriptor.digest),
        "size": descriptor.size,
    }
    return {**entry, "annotations": annotations} if annotations else entry


class _Directory:
    """A `Destination` in a directory."""

    oci_only: Final = True

    def __init__(self, place: Place) -> None:
        self.listing = _Listing(place)
        self._root = place.path

    async def blob(
        self, descriptor: Descriptor, open_blob: Callable[[], BinaryIO], origins: tuple[str, ...], report: Report
    ) -> Literal["exists", "mounted", "pushed"]:
        target = self._root / blob_name(descriptor.digest)
        self.listing.sent.add(descriptor.digest)
        with _disk(target):
            if target.is_file() and target.stat().st_size == descriptor.size:
                return "exists"
        await trio.to_thread.run_sync(partial(_copy, target, open_blob, descriptor, report))
        return "pushed"

    async def manifest(self, document: Document, name: Reference | None) -> None:
        target = self._root / blob_name(document.descriptor.digest)
        await trio.to_thread.run_sync(_put, target, document.data)
        self.listing.add(document, name)


@asynccontextmanager
async def _directory(place: Place) -> AsyncIterator[_Directory]:
    with _disk(place.path):
        place.path.mkdir(parents=True, exist_ok=True)
    # An unfinished marker alone is there when the very first write was killed.
    known = [path.name for path in place.path.iterdir() if final_name(path.name) != "oci-layout"]
    if known and "oci-layout" not in known:
        raise Invalid(f"{place.path} is not empty, and no OCI image layout")
    # First of all: who finds the rest of a write that was killed knows by it what this is, and can go on.
    with _disk(place.path):
        _put(place.path / "oci-layout", _MARKER)
    await trio.to_thread.run_sync(_clear, place.path)
    directory = _Directory(place)
    yield directory
    await trio.to_thread.run_sync(_write_index, place.path, directory.listing.entries)


def _clear(root: Path) -> None:
    clear(root, _OURS)
    for algorithm in root.glob("blobs/*"):
        clear(algorithm, _BLOB)


def _write_index(root: Path, entries: list[dict[str, Any]]) -> None:
    """Add to index.json; an entry takes the name from those that had it. Alone: others may write there too."""
    with _disk(root):
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            document: dict[str, Any] = {"schemaVersion": 2}
            with suppress(FileNotFoundError):
                document = msgspec.json.decode((root / "index.json").read_bytes()[:DOCUMENT_MAX], type=dict[str, Any])
            listed = msgspec.convert(document.get("manifests") or [], list[dict[str, Any]])
            for entry in entries:
                listed = [*(old for old in listed if not _same(old, entry)), entry]
            document["manifests"] = listed
            _put(root / "index.json", msgspec.json.encode(document))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Corrupt(f"{root}: its index.json is not valid") from None
        finally:
            os.close(fd)


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    annotations = old.get("annotations")
    name = (new.get("annotations") or {}).get(REF_NAME)
    known = annotations.get(REF_NAME) if isinstance(annotations, dict) else None
    return bool(known == name and (name is not None or old.get("digest") == new["digest"]))


class _Archive:
    """A `Destination` in a tar archive, written from the front to the end."""

    def __init__(self, place: Place, file: BinaryIO) -> None:
        self.listing = _Listing(place)
        self.oci_only: Final = place.transport == "oci-archive"
        self._file = file
        self._turn = trio.Lock()
        self._documents: set[Digest] = set()

    async def blob(
        self, descriptor: Descriptor, open_blob: Callable[[], BinaryIO], origins: tuple[str, ...], report: Report
    ) -> Literal["exists", "mounted", "pushed"]:
        async with self._turn:
            if descriptor.digest in self.listing.sent:
                return "exists"
            await trio.to_thread.run_sync(partial(self._blob, descriptor, open_blob, report))
            self.listing.sent.add(descriptor.digest)
        return "pushed"

    def _blob(self, descriptor: Descriptor, open_blob: Callable[[], BinaryIO], report: Report) -> None:
        with open_blob() as source, _disk(self.listing.place.path):
            self._file.write(_header(blob_name(descriptor.digest), descriptor.size))
            _pour(source, self._file, descriptor, report)
            self._file.write(b"\0" * (-descriptor.size % 512))

    async def manifest(self, document: Document, name: Reference | None) -> None:
        if document.descriptor.digest not in self._documents:
            self._documents.add(document.descriptor.digest)
            await trio.to_thread.run_sync(self.add, blob_name(document.descriptor.digest), document.data)
        self.listing.add(document, name)

    def add(self, name: str, data: bytes) -> None:
        """A small file."""
        with _disk(self.listing.place.path):
            self._file.write(_header(name, len(data)) + data + b"\0" * (-len(data) % 512))

    def finish(self) -> None:
        """What is said of the images, and the archive's end."""
        index = {"schemaVersion": 2, "manifests": self.listing.entries}
        self.add("oci-layout", _MARKER)
        self.add("index.json", msgspec.json.encode(index))
        if self.listing.place.transport == "docker-archive":
            self.add("manifest.json", msgspec.json.encode(list(self.listing.items.values())))
        with _disk(self.listing.place.path):
            self._file.write(b"\0" * 1024)
            self._file.flush()


@asynccontextmanager
async def _archive(place: Place) -> AsyncIterator[_Archive]:
    path = place.path
    with suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            # A pipe or a terminal's device: there is nothing to rename.
            with _disk(path), path.open("wb") as file:
                archive = _Archive(place, file)
                yield archive
                await trio.to_thread.run_sync(archive.finish)
            return
    await trio.to_thread.run_sync(clear, path.parent, re.compile(re.escape(path.name)))
    with _disk(path), replacing(path) as file:
        archive = _Archive(place, file)
        yield archive
        await trio.to_thread.run_sync(archive.finish)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _pour(source: BinaryIO, target: BinaryIO, descriptor: Descriptor, report: Report) -> None:
    done = 0
    while piece := source.read(_PIECE):
        trio.from_thread.check_cancelled()
        target.write(piece)
        done += len(piece)
        trio.from_thread.run_sync(report, done)
    if done != descriptor.size:
        raise Corrupt(f"blob {descriptor.digest} in the store has {done} bytes, not {descriptor.size}")


def _copy(target: Path, open_blob: Callable[[], BinaryIO], descriptor: Descriptor, report: Report) -> None:
    with _disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_blob() as source, replacing(target) as file:
            _pour(source, file, descriptor, report)
            file.flush()
            os.fdatasync(file.fileno())


def _put(target: Path, data: bytes) -> None:
    with _disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            file.write(data)


class _disk:  # noqa: N801 - used like a function
    """What goes wrong while writing, in words."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import errno

        if not isinstance(error, OSError):
            return
        words = f"{self._path} can't be written: {(error.strerror or str(error)).lower()}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise Exhausted(words, hint="make room, or choose another place") from None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(words, hint="its directory must be there") from None
        if isinstance(error, PermissionError):
            raise Denied(words) from None
        raise Invalid(words) from None
