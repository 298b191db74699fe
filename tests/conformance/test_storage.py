"""The kernel's suite for storage drivers, run over every driver in this environment, ours or a stranger's."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from scow.testing.storage import Check, Storage, storage_checks

pytestmark = pytest.mark.root


def _drivers() -> list[EntryPoint]:
    mounting = {point.name for point in entry_points(group="scow.mount")}
    return sorted(
        (point for point in entry_points(group="scow.unpack") if point.name in mounting), key=lambda p: p.name
    )


@pytest.mark.parametrize("check", storage_checks(), ids=lambda check: check.__name__.removeprefix("check_"))
@pytest.mark.parametrize("point", _drivers(), ids=lambda point: point.name)
async def test_storage(point: EntryPoint, check: Check, tmp_path: Path) -> None:
    storage = Storage(point.value, point.name, tmp_path)
    unavailable = storage.plugin.probe()
    if unavailable is not None:
        pytest.skip(f"{point.name}: {unavailable.reason}")
    await check(storage)
