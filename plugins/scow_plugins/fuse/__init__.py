"""Storage on fuse-overlayfs: layers are directories, stacked by a process where the kernel's overlayfs can't."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scow.api import (
    TAR_LAYERS,
    Digest,
    MountHeld,
    MountRequest,
    PluginContext,
    ProbeResult,
    Snapshot,
    UnpackRequest,
    UnpackRun,
    Written,
    hookimpl,
)

if TYPE_CHECKING:
    from scow.api.layers import SnapshotDirectory


@dataclass(frozen=True, slots=True)
class Config:
    """`[plugins.fuse]` of the configuration file."""

    #: The program, by name or path.
    program: str = "fuse-overlayfs"
    #: Wait until a new layer is on the disk, so that a power failure can't leave half of it under its name.
    sync: bool = True
    max_entries: int = 4_000_000
    max_layer_bytes: int = 256 << 30


class Plugin:
    """unpack and mount, and the store of the snapshots."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._config = context.config(Config)

    def probe(self) -> ProbeResult | None:
        from scow_plugins.fuse._probe import probe

        return probe(self._context, self._config)

    @hookimpl
    def unpack(self, request: UnpackRequest) -> UnpackRun | None:
        if request.driver != self._context.name or request.layer.media_type not in TAR_LAYERS:
            return None
        from scow_plugins.fuse._unpack import unpack

        return partial(unpack, self._store(), self._config, request)

    @hookimpl
    def mount(self, request: MountRequest) -> MountHeld | None:
        if request.driver != self._context.name:
            return None
        from scow_plugins.fuse._mount import mounted

        return mounted(request, self._config, self._context.log)

    def reclaim(self, handle: dict[str, str | int]) -> None:
        """End the process that a dead supervisor has left. Raises Internal when it doesn't end."""
        from scow_plugins.fuse._reclaim import reclaim

        reclaim(str(handle["mount"]))

    def find(self, chain_id: Digest) -> Snapshot | None:
        """The committed snapshot of this chain ID, or None."""
        return self._store().find(chain_id)

    def snapshots(self) -> list[Digest]:
        """The chain IDs of all committed snapshots."""
        return self._store().snapshots()

    def remove(self, chain_id: Digest) -> None:
        """Remove a snapshot that no container uses; not an error when there is none."""
        self._store().remove(chain_id)

    def usage(self, chain_id: Digest) -> int:
        """Bytes on disk. Raises NotFound."""
        return self._store().usage(chain_id)

    def erase(self, scratch: Path) -> None:
        """Remove a container's writable layer, which isn't mounted."""
        from scow.api.layers import erase_directory

        erase_directory(scratch)

    def changes(self, layers: tuple[Snapshot, ...], scratch: Path) -> AbstractContextManager[Written]:
        """What a container has changed. Raises Unsupported, OSError."""
        from scow.api.layers import upper_changes
        from scow_plugins.fuse._view import lower_tree

        return upper_changes(scratch / "upper", lower_tree(layers, self._config.program), dotted=True)

    def sweep(self) -> None:
        """Remove what processes that died while unpacking have left."""
        self._store().sweep()

    def _store(self) -> SnapshotDirectory:
        from scow.api.layers import SnapshotDirectory

        return SnapshotDirectory(self._context.state_dir, self._context.name)
