"""unpack: a wrapper that notes how long each layer took, in the plugin's own state directory."""

from __future__ import annotations

import time
from collections.abc import Generator

from scow.api import PluginContext, Snapshot, UnpackRequest, UnpackRun, hookimpl


class Plugin:
    """Goes around whichever driver claimed the layer. It is never picked itself: wrappers are no drivers."""

    def __init__(self, context: PluginContext) -> None:
        self._notes = context.state_dir / "layers.tsv"

    @hookimpl(wrapper=True)
    def unpack(self, request: UnpackRequest) -> Generator[None, UnpackRun | None, UnpackRun | None]:
        """What arrives hasn't started: wrap it in something that hasn't started either."""
        run = yield
        if run is None:
            return None

        async def timed() -> Snapshot:
            began = time.monotonic()
            snapshot = await run()
            self._note(snapshot, time.monotonic() - began)
            return snapshot

        return timed

    def _note(self, snapshot: Snapshot, seconds: float) -> None:
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        with self._notes.open("a") as file:
            file.write(f"{snapshot.driver}\t{snapshot.chain_id}\t{seconds:.3f}\n")
