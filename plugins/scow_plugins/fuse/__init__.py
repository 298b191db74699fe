"""Storage on fuse-overlayfs: layers are directories, stacked by a process where the kernel's overlayfs can't."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scow.api import (
    MountHeld,
    MountRequest,
    PluginContext,
    ProbeResult,
    Snapshot,
    StorageConfig,
    StorageDriver,
    UnpackRequest,
    UnpackRun,
    Written,
    hookimpl,
)


@dataclass(frozen=True, slots=True)
class Config(StorageConfig):
    """`[plugins.fuse]` of the configuration file."""

    #: The program, by name or path.
    program: str = "fuse-overlayfs"


class Plugin(StorageDriver):
    """unpack and mount, and the store of the snapshots."""

    def __init__(self, context: PluginContext) -> None:
        super().__init__(context)
        self._config = context.config(Config)

    def probe(self) -> ProbeResult | None:
        from scow_plugins.fuse._probe import probe

        return probe(self.context, self._config)

    @hookimpl
    def unpack(self, request: UnpackRequest) -> UnpackRun | None:
        if not self.unpacks(request):
            return None
        from scow_plugins.fuse._unpack import unpack

        return partial(unpack, self.store(), self._config, request)

    @hookimpl
    def mount(self, request: MountRequest) -> MountHeld | None:
        if not self.mounts(request):
            return None
        from scow_plugins.fuse._mount import mounted

        return mounted(request, self._config, self.context.log)

    def reclaim(self, handle: dict[str, str | int]) -> None:
        """End the process that a dead supervisor has left. Raises Internal when it doesn't end."""
        from scow_plugins.fuse._reclaim import reclaim

        reclaim(str(handle["mount"]))

    def changes(self, layers: tuple[Snapshot, ...], scratch: Path) -> AbstractContextManager[Written]:
        """What a container has changed. Raises Unsupported, OSError."""
        from scow.api.layers import upper_changes
        from scow_plugins.fuse._view import lower_tree

        return upper_changes(scratch / "upper", lower_tree(layers, self._config.program), dotted=True)
