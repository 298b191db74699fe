"""A pull that is killed goes on in the next command, behind what came."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial

import pytest
import trio

from scow.testing.registry import Faults, Registry, serve

from .conftest import Scow


@pytest.fixture(params=[False], ids=["cold"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The process that is killed is the one that pulls."""
    return bool(request.param)


async def test_a_killed_pull_goes_on(scow: Scow) -> None:
    noise = os.urandom(8 << 20)
    registry = Registry(Faults(trickle=0.02, trickle_bytes=128 * 1024))
    image = registry.add_image("big", layers=[{"noise": noise}], compression="none")
    (layer,) = image.layers
    async with serve(registry):
        process = scow.start("pull", f"{registry.host}/big", stdout=subprocess.DEVNULL)
        partial_file = scow.root / "content" / "ingest" / layer["digest"].replace(":", "-")
        await _until(lambda: partial_file.exists() and partial_file.stat().st_size >= 2 << 20)
        process.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(process.wait)
        came = partial_file.stat().st_size
        assert 0 < came < len(noise)
        before = len(registry.requests)
        registry.faults.trickle = 0
        out = await trio.to_thread.run_sync(partial(scow, "pull", f"{registry.host}/big"))
        asked = [each for each in registry.requests[before:] if layer["digest"] in each.path]
    assert "Downloaded newer image" in out
    assert [each.headers.get("range") for each in asked] == [f"bytes={came}-"]


async def _until(done: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        await trio.sleep(0.02)
