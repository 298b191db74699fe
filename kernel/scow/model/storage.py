"""What unpack gives and mount takes: snapshots, and the root file system made of them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Protocol

from scow.model.descriptor import Descriptor
from scow.model.digest import Digest
from scow.model.journal import Journal


class SnapshotForm(Enum):
    """A layer may be kept as a directory tree or as one image file."""

    DIRECTORY = "directory"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A committed layer, complete and read-only, at `path`; `driver` is the plugin that can mount it."""

    driver: str
    chain_id: Digest
    path: Path
    form: SnapshotForm = SnapshotForm.DIRECTORY


class Blob(Protocol):
    """A layer's bytes, compressed as they came; may still be arriving while they are read."""

    @property
    def descriptor(self) -> Descriptor:
        """What the bytes should be. The kernel checks digest and size; a driver needn't."""
        ...

    def open(self) -> BinaryIO:
        """A reader from the first byte; for worker threads only: `read` blocks until bytes have arrived.

        `read` raises the fetch's own error when the rest will never come, so that the driver stops.
        """
        ...


@dataclass(frozen=True, slots=True)
class UnpackRequest:
    """One layer to be made a snapshot of. `parents` are the snapshots below it, lowest first."""

    driver: str
    layer: Descriptor
    diff_id: Digest
    chain_id: Digest
    parents: tuple[Snapshot, ...]
    blob: Blob


@dataclass(frozen=True, slots=True)
class MountRequest:
    """A container's root file system: `layers` (lowest first) with the writable layer in `scratch` on top.

    `scratch` is a directory that the kernel made for this container and removes with it; what lies in it is the
    driver's business and survives stop and start. `volatile` says that nothing in it will be needed after the
    process ends (`--rm`), so that nothing need be synced to disk.
    """

    driver: str
    container: str
    layers: tuple[Snapshot, ...]
    scratch: Path
    journal: Journal
    volatile: bool = False


@dataclass(frozen=True, slots=True)
class Rootfs:
    """A mounted root file system.

    `fd` is a directory descriptor of a *detached* mount (fsmount(2), or open_tree(2) with OPEN_TREE_CLONE): it
    stands in no mount table, disappears with the last descriptor, and is attached by move_mount(2) in the
    container's own mount namespace. The driver closes it.
    """

    driver: str
    fd: int


class ChangeKind(Enum):
    """What became of a path; the value is `docker diff`'s letter."""

    ADDED = "A"
    MODIFIED = "C"
    DELETED = "D"


@dataclass(frozen=True, slots=True)
class Change:
    """A path (relative, "" is the root) that differs from the image. `time_only`: a directory's time, nothing else."""

    path: bytes
    kind: ChangeKind
    time_only: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What a container has changed, sorted by path components; what was added or modified lies beneath `root`.

    `root` is a directory descriptor, -1 when the container was never started.
    """

    root: int
    changes: tuple[Change, ...]


class SnapshotStore(Protocol):
    """What a storage driver does beside its hooks; a plugin that unpacks is one of these.

    Methods block briefly (directory look-ups); `remove` may take long and is called in a worker thread.
    """

    def find(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot of this chain ID, or None."""
        ...

    def snapshots(self) -> list[Digest]:
        """The chain IDs of all committed snapshots."""
        ...

    def remove(self, chain_id: Digest) -> None:
        """Remove a snapshot; no container uses it. Not an error when there is none."""
        ...

    def usage(self, chain_id: Digest) -> int:
        """Bytes that the snapshot takes on disk. Raises NotFound."""
        ...

    def erase(self, scratch: Path) -> None:
        """Remove what `mount` has put into a container's `scratch`, which isn't mounted any more."""
        ...

    def changes(self, layers: tuple[Snapshot, ...], scratch: Path) -> AbstractContextManager[Written]:
        """What was written in `scratch` above `layers` (lowest first), whether it is mounted or not.

        The same files give the same changes whatever the driver. Blocks. Raises OSError.
        """
        ...
