"""`host:`, this machine's own root file system as an image: nothing is fetched, nothing copied."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from scow.api import (
    HOST_LAYER,
    Descriptor,
    Digest,
    FetchRun,
    Located,
    NotFound,
    Platform,
    PluginContext,
    Reference,
    ResolveRun,
    Snapshot,
    Source,
    UnpackRequest,
    UnpackRun,
    Written,
    hookimpl,
)


class Plugin:
    """resolve, fetch and unpack; its one snapshot is `/`."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context

    @hookimpl
    def resolve(self, reference: Reference, platform: Platform) -> ResolveRun | None:
        if not isinstance(reference, Located) or reference.transport != "host":
            return None
        from scow_plugins.host._image import resolve

        return partial(resolve, self._context, reference, platform)

    @hookimpl
    def fetch(self, source: Source, descriptor: Descriptor) -> FetchRun | None:
        if source.plugin != self._context.name:
            return None
        from scow_plugins.host._image import fetch

        return partial(fetch, self._context, descriptor)

    @hookimpl
    def unpack(self, request: UnpackRequest) -> UnpackRun | None:
        if request.layer.media_type != HOST_LAYER:
            return None
        from scow_plugins.host._image import unpack

        return partial(unpack, self._context, request)

    def find(self, chain_id: Digest) -> Snapshot | None:
        """The root directory, if this is the chain ID that stands for it."""
        from scow_plugins.host._image import known_layer

        layer = known_layer(self._context)
        if layer is None or chain_id != Digest.of(layer):
            return None
        return Snapshot(self._context.name, chain_id, Path("/"))

    def snapshots(self) -> list[Digest]:
        """None: there is nothing that could be removed."""
        return []

    def remove(self, chain_id: Digest) -> None:
        """Nothing to do: the snapshot is the machine."""

    def usage(self, chain_id: Digest) -> int:
        """0: it takes nothing beside what is there anyway. Raises NotFound."""
        if self.find(chain_id) is None:
            raise NotFound(f"{chain_id} is not this machine's root file system")
        return 0

    def erase(self, scratch: Path) -> None:
        """Nothing to do: this plugin doesn't mount."""

    def changes(self, layers: tuple[Snapshot, ...], scratch: Path) -> AbstractContextManager[Written]:
        """Of nothing: this plugin doesn't mount."""
        return nullcontext(Written(-1, ()))
