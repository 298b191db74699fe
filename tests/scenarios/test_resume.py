"""A pull that is killed goes on in the next command, behind what came; a push that is killed is made anew."""

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
from scow_plugins.registry._push import CHUNK

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


async def test_a_pull_in_parts_that_is_killed_goes_on(scow: Scow) -> None:
    """Parts come side by side, but what is in the file is always the beginning of the layer."""
    noise = os.urandom(20 << 20)
    registry = Registry(Faults(trickle=0.02, trickle_bytes=128 * 1024, stop_at=16 << 20))
    image = registry.add_image("big", layers=[{"noise": noise}], compression="none")
    (layer,) = image.layers
    scow.config.write_text("[plugins.registry]\nsplit_from = 1000000\n")
    async with serve(registry):
        process = scow.start("pull", f"{registry.host}/big", stdout=subprocess.DEVNULL)
        partial_file = scow.root / "content" / "ingest" / layer["digest"].replace(":", "-")
        await _until(lambda: any("-" in part and not part.endswith("-") for part in ranges(registry)))
        at = partial_file.stat().st_size
        await _until(lambda: partial_file.stat().st_size >= at + (3 << 20))
        process.send_signal(signal.SIGKILL)
        await trio.to_thread.run_sync(process.wait)
        came = partial_file.read_bytes()
        assert registry.blobs[layer["digest"]].startswith(came)
        assert 0 < len(came) < layer["size"]
        registry.faults.trickle = 0
        registry.faults.stop_at = None
        before = len(registry.requests)
        await trio.to_thread.run_sync(partial(scow, "pull", "-q", f"{registry.host}/big"))
        # What the dead one had asked for in parts may be read by the registry only now.
        assert [each for each in ranges(registry, before) if each.endswith("-")] == [f"bytes={len(came)}-"]
        assert "all well" in await trio.to_thread.run_sync(partial(scow, "fsck"))


async def test_a_killed_push_is_made_anew(scow: Scow) -> None:
    """Killed in the middle of a layer's first piece, of its second, and with a manifest that has no answer yet."""
    source = Registry()
    image = source.add_image("big", layers=[{"noise": os.urandom(CHUNK + (1 << 20))}], compression="none")
    (layer,) = image.layers
    async with serve(source):
        await trio.to_thread.run_sync(partial(scow, "pull", "-q", f"{source.host}/big"))
    blobs = layer["size"] + image.config["size"]
    for moment in (1 << 20, CHUNK + (1 << 17), blobs + 1):
        target = Registry(Faults(hold_at=moment))
        async with serve(target):
            name = f"{target.host}/big"
            await trio.to_thread.run_sync(partial(scow, "tag", f"{source.host}/big", name))
            process = scow.start("push", "-q", name)
            await _until(lambda there=target, at=moment: there.received >= at)
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
            assert await trio.to_thread.run_sync(process.wait) == -signal.SIGKILL
            assert not target.manifests
            assert (layer["digest"] in target.blobs) == (moment > blobs)
            target.faults.hold_at = None
            await trio.to_thread.run_sync(partial(scow, "push", "-q", name))
        assert target.manifests["big", "latest"] == source.manifests["big", "latest"]
        assert target.blobs == source.blobs, moment
    assert "all well" in await trio.to_thread.run_sync(partial(scow, "fsck"))


async def test_the_lowest_layer_comes_first(scow: Scow) -> None:
    """Nothing can be unpacked before it is there."""
    scow.config.write_text("parallel_fetches = 1\n")
    registry = Registry()
    image = registry.add_image("many", layers=[{f"file{number}": b"x"} for number in range(9)])
    async with serve(registry):
        await trio.to_thread.run_sync(partial(scow, "pull", "-q", f"{registry.host}/many"))
    asked = [each.path.rpartition("/")[2] for each in registry.asked("/blobs/")]
    assert asked == [image.config["digest"], *(layer["digest"] for layer in image.layers)]


async def test_a_layer_that_another_command_fetches_is_waited_for(scow: Scow) -> None:
    registry = Registry(Faults(trickle=0.02, trickle_bytes=128 * 1024))
    shared = {"noise": os.urandom(4 << 20)}
    first = registry.add_image("one", layers=[shared, {"a": b"1"}], compression="none")
    registry.add_image("two", layers=[shared, {"b": b"2"}], compression="none")
    async with serve(registry):
        commands = [scow.start("pull", "-q", f"{registry.host}/{name}") for name in ("one", "two", "one")]
        for command in commands:
            assert await trio.to_thread.run_sync(command.wait) == 0
    asked = [each for each in registry.requests if first.layers[0]["digest"] in each.path]
    assert len(asked) == 1


async def test_who_waited_goes_on_when_the_other_is_killed(scow: Scow) -> None:
    registry = Registry(Faults(trickle=0.02, trickle_bytes=128 * 1024))
    image = registry.add_image("one", layers=[{"noise": os.urandom(8 << 20)}], compression="none")
    (layer,) = image.layers
    async with serve(registry):
        first = scow.start("pull", "-q", f"{registry.host}/one")
        partial_file = scow.root / "content" / "ingest" / layer["digest"].replace(":", "-")
        await _until(lambda: partial_file.exists() and partial_file.stat().st_size >= 2 << 20)
        second = scow.start("pull", "-q", f"{registry.host}/one")
        await trio.sleep(0.5)
        first.kill()
        assert await trio.to_thread.run_sync(second.wait) == 0
        await trio.to_thread.run_sync(first.wait)
    asked = [each.headers.get("range") for each in registry.requests if layer["digest"] in each.path]
    assert len(asked) == 2
    assert int(asked[1][6:-1]) >= 2 << 20


def ranges(registry: Registry, since: int = 0) -> list[str]:
    return [each.headers["range"] for each in registry.requests[since:] if "range" in each.headers]


async def _until(done: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline
        await trio.sleep(0.02)
