"""Storage on EROFS images: a layer is one file, mounted as it is; overlayfs stacks the mounts."""

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
    suffix = ".erofs"

    def __init__(self, context: PluginContext) -> None:
        super().__init__(context)
        self._config = context.config(StorageConfig)

    def probe(self) -> ProbeResult | None:
        from scow_plugins.erofs._probe import probe

        return probe(self.context)

    @hookimpl(tryfirst=True)
    def unpack(self, request: UnpackRequest) -> UnpackRun | None:
        if not self.unpacks(request):
            return None
        from scow_plugins.erofs._unpack import unpack

        return partial(unpack, self.store(), self._config, request)

    @hookimpl(tryfirst=True)
    def mount(self, request: MountRequest) -> MountHeld | None:
        if not self.mounts(request):
            return None
        from scow.api.layers import overlay_mounted
        from scow_plugins.erofs._layer import open_layer

        return overlay_mounted(request, self.context.engine_dirs, open_layer)

    def changes(self, layers: tuple[Snapshot, ...], scratch: Path) -> AbstractContextManager[Written]:
        """What a container has changed. Raises OSError."""
        from scow.api.layers import overlay_changes
        from scow_plugins.erofs._layer import open_layer

        return overlay_changes(layers, scratch, open_layer)
