"""What storage plugins with a store of their own have in common: the settings, and all of the store but its content."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from scow.api._context import PluginContext
from scow.layers.limits import Limits
from scow.model.descriptor import TAR_LAYERS
from scow.model.digest import Digest
from scow.model.storage import MountRequest, Snapshot, UnpackRequest

if TYPE_CHECKING:
    from scow.layers.snapshots import SnapshotDirectory


@dataclass(frozen=True, slots=True)
class StorageConfig:
    """What the configuration file says of each of them; settings of one alone are added by inheritance."""

    #: Wait until a new layer is on the disk, so that a power failure can't leave half of it under its name.
    sync: bool = True
    max_entries: int = 4_000_000
    max_layer_bytes: int = 256 << 30

    @property
    def limits(self) -> Limits:
        """How much one layer may make."""
        return Limits(self.max_entries, self.max_layer_bytes)


class StorageDriver:
    """A base class: the methods of `SnapshotStore` over the plugin's state directory, all but `changes`.

    The hooks are the plugin's own: pluggy's options (`tryfirst`) say where each stands among the others.
    """

    #: What the names of layers end in where each is one file; empty where each is a directory.
    suffix: ClassVar[str] = ""

    def __init__(self, context: PluginContext) -> None:
        self.context = context

    def unpacks(self, request: UnpackRequest) -> bool:
        """Whether it is this driver that was asked, for a layer that is an archive."""
        return request.driver == self.context.name and request.layer.media_type in TAR_LAYERS

    def mounts(self, request: MountRequest) -> bool:
        """Whether it is this driver that was asked."""
        return request.driver == self.context.name

    def find(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot of this chain ID, or None."""
        return self.store().find(chain_id)

    def snapshots(self) -> list[Digest]:
        """The chain IDs of all committed snapshots."""
        return self.store().snapshots()

    def remove(self, chain_id: Digest) -> None:
        """Remove a snapshot that no container uses; not an error when there is none."""
        self.store().remove(chain_id)

    def usage(self, chain_id: Digest) -> int:
        """Bytes on disk. Raises NotFound."""
        return self.store().usage(chain_id)

    def erase(self, scratch: Path) -> None:
        """Remove what a container has written, which isn't mounted."""
        from scow.layers.snapshots import erase_directory

        erase_directory(scratch)

    def sweep(self) -> None:
        """Remove what processes that died while unpacking have left."""
        self.store().sweep()

    def store(self) -> SnapshotDirectory:
        """Where the snapshots are; each with its own lock, so that any number of processes may use it."""
        return self._store

    @cached_property
    def _store(self) -> SnapshotDirectory:
        if self.suffix:
            from scow.layers.imagefiles import SnapshotFiles

            return SnapshotFiles(self.context.state_dir, self.context.name, self.suffix)
        from scow.layers.snapshots import SnapshotDirectory

        return SnapshotDirectory(self.context.state_dir, self.context.name)
