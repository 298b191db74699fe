"""What every storage driver must do, as async functions over a maker; a driver's test runs all of them. Free of pytest.

    for check in storage_checks():
        await check(Storage("scow_plugins.overlay:Plugin", "overlay", an_empty_directory))

A check raises AssertionError, or whatever a driver raised where it shouldn't have. Needs root.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from scow.api import PluginContext
from scow.errors import ScowError
from scow.model.digest import Digest, chain_ids
from scow.model.storage import MountRequest, Snapshot, UnpackRequest
from scow.testing.layers import BytesBlob, gzipped

Check: TypeAlias = Callable[["Storage"], Awaitable[None]]


class Journal:
    """What is held now, by number."""

    def __init__(self) -> None:
        self.held: dict[int, dict[str, str | int]] = {}
        self._last = 0

    def hold(self, **handle: str | int) -> int:
        self._last += 1
        self.held[self._last] = handle
        return self._last

    def release(self, entry: int) -> None:
        del self.held[entry]


class Storage:
    """A driver, made of `factory` ("module:Class"), in a directory of its own that the caller removes."""

    def __init__(self, factory: str, driver: str, base: Path) -> None:
        self.factory = factory
        self.driver = driver
        self.base = base
        context = PluginContext(driver, base / "state", base / "run", {}, "test", (base,))
        module, _, name = factory.partition(":")
        self.plugin: Any = getattr(importlib.import_module(module), name)(context)
        #: That of the last mount.
        self.journal = Journal()

    def request(self, layer: bytes, below: tuple[Snapshot, ...] = (), blob: BytesBlob | None = None) -> UnpackRequest:
        """To unpack an uncompressed layer, sent as `blob` (gzip, unless the caller has another one)."""
        blob = blob or gzipped(layer)
        diff_id = Digest.of(layer)
        chain_id = diff_id
        if below:
            # As chain_ids() does, from the chain ID below rather than from all the diff IDs.
            chain_id = Digest.of(f"{below[-1].chain_id} {diff_id}".encode())
        return UnpackRequest(self.driver, blob.descriptor, diff_id, chain_id, below, blob)

    async def unpack(self, *layers: bytes) -> tuple[Snapshot, ...]:
        """The snapshots of an image's layers, lowest first."""
        snapshots: tuple[Snapshot, ...] = ()
        for layer in layers:
            snapshots = (*snapshots, await self.run(self.request(layer, snapshots)))
        assert not snapshots or snapshots[-1].chain_id == chain_ids(tuple(map(Digest.of, layers)))[-1]
        return snapshots

    async def run(self, request: UnpackRequest) -> Snapshot:
        """Claim and run."""
        run = self.plugin.unpack(request)
        assert run is not None, "the driver doesn't claim a layer with its own name"
        snapshot: Snapshot = await run()
        return snapshot

    @asynccontextmanager
    async def mounted(
        self, layers: tuple[Snapshot, ...], scratch: str = "one", *, volatile: bool = False
    ) -> AsyncIterator[Path]:
        """A container's root, as a path that is good within the block."""
        place = self.base / "scratch" / scratch
        place.mkdir(parents=True, exist_ok=True)
        journal = Journal()
        held = self.plugin.mount(MountRequest(self.driver, scratch, layers, place, journal, volatile))
        assert held is not None, "the driver doesn't claim a mount with its own name"
        async with held as rootfs:
            self.journal = journal
            yield Path(f"/proc/self/fd/{rootfs.fd}/.")
        assert journal.held == {}, "something that was written down wasn't crossed out"

    def check_empty(self) -> None:
        """No snapshot, and nothing but empty directories where snapshots are made."""
        assert self.plugin.snapshots() == []
        left = [name for _, _, files in os.walk(self.base / "state") for name in files]
        assert left == [], f"left over: {left}"


async def refused(
    storage: Storage, layer: bytes, *kinds: type[ScowError], below: tuple[Snapshot, ...] = ()
) -> ScowError:
    """Unpacking raises one of `kinds`, and leaves nothing."""
    before = storage.plugin.snapshots()
    try:
        await storage.run(storage.request(layer, below))
    except kinds as error:
        assert storage.plugin.snapshots() == before
        if not below:
            storage.check_empty()
        return error
    raise AssertionError(f"unpacked, although it should be {' or '.join(kind.__name__ for kind in kinds)}")


def storage_checks() -> tuple[Check, ...]:
    """All checks, in order."""
    from scow.testing import storage_archives, storage_lifecycle, storage_trees

    modules = (storage_trees, storage_archives, storage_lifecycle)
    return tuple(
        value for module in modules for name, value in sorted(vars(module).items()) if name.startswith("check_")
    )
