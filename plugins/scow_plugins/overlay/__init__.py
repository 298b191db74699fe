"""Storage on the kernel's overlayfs: a layer is a directory, a container adds one of its own on top."""

from __future__ import annotations

from contextlib import AbstractContextManager
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


class Plugin(StorageDriver):
    """unpack and mount, and the store of the snapshots."""

    rests = True

    def __init__(self, context: PluginContext) -> None:
        super().__init__(context)
        self._config = context.config(StorageConfig)

    def probe(self) -> ProbeResult | None:
        from scow_plugins.overlay._probe import probe

        return probe(self.context)

    @hookimpl(tryfirst=True)
    def unpack(self, request: UnpackRequest) -> UnpackRun | None:
        if not self.unpacks(request):
            return None
        from scow.api.layers import LowerTree, merged_view, unpack_directory

        lower = LowerTree(lambda: merged_view(request.parents)) if request.parents else None
        return partial(unpack_directory, self.store(), request, lower, self._config.limits, durable=self._config.sync)

    @hookimpl(tryfirst=True)
    def mount(self, request: MountRequest) -> MountHeld | None:
        if not self.mounts(request):
            return None
        from scow.api.layers import overlay_mounted

        return overlay_mounted(request, self.context.engine_dirs)

    def changes(self, layers: tuple[Snapshot, ...], scratch: Path) -> AbstractContextManager[Written]:
        """What a container has changed. Raises OSError."""
        from scow.api.layers import overlay_changes

        return overlay_changes(layers, scratch)
