"""A large blob that comes slowly is fetched in parts; whoever doesn't like that gets it asked for as before."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import trio

from scow.api import Corrupt, Invalid
from scow.testing.registry import Registry, serve
from scow_plugins.registry._puller import Puller
from scow_plugins.registry._retry import Policy
from scow_plugins.registry._settings import read_settings
from scow_plugins.registry._split import PART

from .conftest import QUICK

DATA = random.Random(5).randbytes(9 * PART + 12345)
#: Every connection is slow at once.
SPLIT = replace(QUICK, slow=1e12, slow_after=0.0)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add_blob(DATA)
    return registry


@pytest.fixture
def entry(registry: Registry) -> dict:
    (digest,) = registry.blobs
    return {"mediaType": "application/x", "digest": digest, "size": len(DATA)}


def make(policy: Policy = SPLIT, **settings: object) -> Puller:
    return Puller(read_settings({"split_from": 1, **settings}), policy)


def parts_of(registry: Registry) -> list[str]:
    """The ranges with an end that were asked for."""
    ranges = [request.headers.get("range", "") for request in registry.requests]
    return [each for each in ranges if each and not each.endswith("-")]


async def fetch(registry, sink, policy=SPLIT) -> None:
    async with serve(registry):
        await make(policy).fetch(f"{registry.host}/a", sink.descriptor, sink)


async def test_the_rest_of_a_slow_blob_comes_in_parts_over_several_connections(registry, entry, sink_for):
    sink = sink_for(entry)
    registry.faults.trickle, registry.faults.trickle_bytes = 0.002, 256 * 1024
    await fetch(registry, sink)
    assert bytes(sink.data) == DATA
    assert sink.restarts == 0
    assert 8 <= len(parts_of(registry)) <= 10
    assert len(set(parts_of(registry))) == len(parts_of(registry))
    assert 3 <= registry.connections <= 6


async def test_several_connections_are_quicker_where_each_is_slow(registry, entry, sink_for):
    seconds = {}
    registry.faults.trickle, registry.faults.trickle_bytes = 0.01, 256 * 1024
    for _ in range(5):  # a busy machine may stop any of them for a while
        for name, policy in (("one", QUICK), ("several", SPLIT)):
            sink, before = sink_for(entry), trio.current_time()
            await fetch(registry, sink, policy)
            seconds[name] = trio.current_time() - before
        if seconds["several"] < seconds["one"] * 0.7:
            return
    pytest.fail(str(seconds))


async def test_a_quick_connection_stays_alone(registry, entry, sink_for):
    sink = sink_for(entry)
    await fetch(registry, sink, QUICK)
    assert bytes(sink.data) == DATA
    assert len(registry.requests) == 1


@pytest.mark.parametrize("settings", [{"connections": 1}, {"split_from": len(DATA)}])
async def test_it_can_be_switched_off(registry, entry, sink_for, settings):
    sink = sink_for(entry)
    async with serve(registry):
        await make(**settings).fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert bytes(sink.data) == DATA
    assert len(registry.requests) == 1


@pytest.mark.parametrize("settings", [{"connections": 0}, {"connections": "many"}, {"split_from": -1}, {"splits": 1}])
def test_settings_that_are_refused(settings):
    with pytest.raises(Invalid, match=r"plugins\.registry"):
        read_settings(settings)


@pytest.mark.parametrize(
    "fault",
    [
        {"ignore_range": True},
        {"parts_status": 429},
        {"parts_status": 416},
        {"parts_status": 500},
        {"parts": "elsewhere"},
        {"parts": "short"},
        {"parts": "changed"},
    ],
    ids=str,
)
async def test_a_server_without_parts_loses_nothing(registry, entry, sink_for, fault):
    """The first connection goes on where it is; a second blob isn't tried again."""
    for name, value in fault.items():
        setattr(registry.faults, name, value)
    async with serve(registry):
        pull = make()
        for _ in range(2):
            sink = sink_for(entry)
            await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
            assert bytes(sink.data) == DATA
            assert sink.restarts == 0
    assert len(parts_of(registry)) == 1
    assert len(registry.requests) == 3


@pytest.mark.parametrize(
    "fault", [{"parts_status": 429}, {"parts": "elsewhere"}, {"parts": "short"}, {"parts": "changed"}], ids=str
)
async def test_parts_that_go_wrong_later_are_gone_on_behind(registry, entry, sink_for, fault):
    sink = sink_for(entry)
    for name, value in fault.items():
        setattr(registry.faults, name, value)
    registry.faults.good_parts = 3
    await fetch(registry, sink)
    assert bytes(sink.data) == DATA
    assert sink.restarts == 0
    # What came in an unbroken row is kept, the rest comes over one connection.
    assert registry.requests[-1].headers["range"].endswith("-")
    assert int(registry.requests[-1].headers["range"][6:-1]) >= PART


async def test_spoilt_parts_are_found_by_the_digest(registry, entry, sink_for):
    sink = sink_for(entry)
    registry.faults.corrupt_blobs = True
    async with serve(registry):
        with pytest.raises(Corrupt, match="another digest"):
            await make().fetch(f"{registry.host}/a", sink.descriptor, sink)


async def test_a_token_that_ends_between_parts(registry, entry, sink_for):
    sink = sink_for(entry)
    registry.faults.auth, registry.faults.token_uses = "bearer", 2
    await fetch(registry, sink)
    assert bytes(sink.data) == DATA
    assert len(registry.asked("/token")) > 2


async def test_parts_come_from_where_the_registry_sends_us(registry, entry, sink_for):
    sink, storage = sink_for(entry), Registry()
    storage.blobs = registry.blobs
    async with serve(storage):
        registry.faults.redirect = storage.url
        await fetch(registry, sink)
    assert bytes(sink.data) == DATA
    assert len(parts_of(storage)) >= 8


async def test_parts_may_be_cancelled_and_gone_on_with(registry, entry, sink_for):
    sink = sink_for(entry)
    registry.faults.trickle, registry.faults.trickle_bytes = 0.01, 256 * 1024
    async with serve(registry):
        pull = make()
        with trio.move_on_after(0.15) as scope:
            await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
        assert scope.cancelled_caught
        assert 0 < sink.offset < len(DATA)
        assert bytes(sink.data) == DATA[: sink.offset]
        registry.faults.trickle = 0
        await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
        assert sum(len(pool.connections) for pool in pull._run().session.client._pools.values()) <= 6
    assert bytes(sink.data) == DATA


async def test_not_far_ahead_of_what_is_written(registry, entry, sink_for):
    """Memory stays flat: a sink that is slow holds the parts back."""
    sink, lead = sink_for(entry), []

    async def write(data: bytes, write=sink.write) -> None:
        await trio.sleep(0.01)
        asked = [int(each[6:].partition("-")[0]) for each in parts_of(registry)]
        lead.append(max(asked, default=0) - sink.offset)
        await write(data)

    sink.write = write  # type: ignore[method-assign]
    await fetch(registry, sink)
    assert bytes(sink.data) == DATA
    assert 0 < max(lead) <= 8 * PART
