"""Blobs that are cut short, spoilt, slow, elsewhere, or refused in part."""

from __future__ import annotations

import pytest
import trio

from scow.api import Corrupt, NotFound, Unavailable
from scow.testing.registry import Registry, serve


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.add_image("a", layers=[{"a": bytes(range(256)) * 4000}], compression="none")
    return registry


def layer_of(registry: Registry) -> dict:
    digest = max(registry.blobs, key=lambda digest: len(registry.blobs[digest]))
    return {"mediaType": "application/x", "digest": digest, "size": len(registry.blobs[digest])}


async def test_a_blob_that_is_cut_short_is_gone_on_with(registry, puller, sink_for):
    sink = sink_for(layer_of(registry))
    registry.faults.truncate, registry.faults.truncations = 300_000, 2
    async with serve(registry):
        await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert bytes(sink.data) == registry.blobs[str(sink.descriptor.digest)]
    assert [request.headers.get("range") for request in registry.requests] == [None, "bytes=300000-", "bytes=600000-"]
    assert sink.restarts == 0


async def test_a_blob_that_is_always_cut_at_once(registry, puller, sink_for):
    sink = sink_for(layer_of(registry))
    registry.faults.truncate = 0
    async with serve(registry):
        with pytest.raises(Unavailable, match=r"too early.*, after 0 of \d+ bytes"):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert len(registry.requests) == 4


async def test_many_small_pieces_are_many_rounds_but_not_endless(registry, puller, sink_for):
    sink = sink_for(layer_of(registry))
    registry.faults.truncate = 1000
    async with serve(registry):
        with pytest.raises(Unavailable):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert len(registry.requests) == 100
    assert sink.offset == 100_000


@pytest.mark.parametrize("fault", ["ignore_range", "refuse_range"])
async def test_a_server_that_can_not_go_on(registry, puller, sink_for, fault):
    entry = layer_of(registry)
    sink = sink_for(entry, b"x" * 1000)
    setattr(registry.faults, fault, True)
    async with serve(registry):
        await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert bytes(sink.data) == registry.blobs[entry["digest"]]
    assert sink.restarts == 1


async def test_a_part_of_another_place(registry, puller, sink_for):
    """A 206 that begins elsewhere would be appended in the wrong place."""
    entry = layer_of(registry)
    sink = sink_for(entry, registry.blobs[entry["digest"]][:1000])
    data = registry.blobs[entry["digest"]]
    head = b"Connection: close\r\nContent-Length: %d\r\n\r\n"

    async def lie(stream):
        if b"Range" in await stream.receive_some(10_000):
            await stream.send_all(b"HTTP/1.1 206 x\r\nContent-Range: bytes 0-9/10\r\n" + head % 10 + b"0" * 10)
        else:
            await stream.send_all(b"HTTP/1.1 200 x\r\n" + head % len(data) + data)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, lie, 0)
        port = listeners[0].socket.getsockname()[1]
        await puller().fetch(f"127.0.0.1:{port}/a", sink.descriptor, sink)
        nursery.cancel_scope.cancel()
    assert bytes(sink.data) == registry.blobs[entry["digest"]]


async def test_a_complete_sink_needs_nothing(registry, puller, sink_for):
    entry = layer_of(registry)
    sink = sink_for(entry, registry.blobs[entry["digest"]])
    async with serve(registry):
        await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert registry.requests == []


async def test_spoilt_bytes_are_the_sinks_to_refuse(registry, puller, sink_for):
    sink = sink_for(layer_of(registry))
    registry.faults.corrupt_blobs = True
    async with serve(registry):
        with pytest.raises(Corrupt, match="another digest"):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert len(registry.requests) == 1


async def test_more_bytes_than_promised(registry, puller, sink_for):
    entry = layer_of(registry)
    sink = sink_for({**entry, "size": 1000})
    async with serve(registry):
        with pytest.raises(Corrupt, match="too long"):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)


async def test_fewer_bytes_than_promised(registry, puller, sink_for):
    entry = layer_of(registry)
    sink = sink_for({**entry, "size": entry["size"] + 1})
    async with serve(registry):
        with pytest.raises(Unavailable, match="bytes"):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert len(registry.requests) <= 6


async def test_no_such_blob(registry, puller, sink_for):
    sink = sink_for({"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 5})
    async with serve(registry):
        with pytest.raises(NotFound, match=r"blob sha256:0000.* not found in 127"):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)


async def test_a_slow_server_is_slow_but_fine(registry, puller, sink_for):
    sink = sink_for(layer_of(registry))
    registry.faults.trickle, registry.faults.trickle_bytes = 0.005, 50_000
    async with serve(registry):
        await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert bytes(sink.data) == registry.blobs[str(sink.descriptor.digest)]
    # Small pieces are gathered before they are written.
    assert sink.writes < 10


async def test_a_fetch_may_be_cancelled_and_gone_on_with(registry, puller, sink_for):
    sink = sink_for(layer_of(registry))
    registry.faults.trickle, registry.faults.trickle_bytes = 0.02, 200_000
    async with serve(registry):
        pull = puller()
        with trio.move_on_after(0.05) as scope:
            await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
        assert scope.cancelled_caught
        assert 0 < sink.offset < sink.descriptor.size
        registry.faults.trickle = 0
        await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert bytes(sink.data) == registry.blobs[str(sink.descriptor.digest)]
    assert registry.requests[1].headers["range"].startswith("bytes=")


async def test_cancelled_at_every_step_it_leaves_no_connection_behind(registry, puller, sink_for):
    """The pool must not count a connection as busy for ever."""
    async with serve(registry):
        pull = puller()
        for step in range(1, 40):
            sink = sink_for(layer_of(registry))
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:

                    async def count(steps=step, scope=scope):
                        for _ in range(steps):
                            await trio.lowlevel.checkpoint()
                        scope.cancel()

                    nursery.start_soon(count)
                    await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
                    nursery.cancel_scope.cancel()
        pools = pull._run().session.client._pools.values()
        assert all(pool._requests == [] for pool in pools)
        assert sum(len(pool.connections) for pool in pools) <= 1


async def test_foreign_layers_come_from_https_only(registry, puller, sink_for):
    entry = {"mediaType": "x", "digest": "sha256:" + "0" * 64, "size": 5}
    sink = sink_for(entry, urls=("http://127.0.0.1:1/x", "ftp://a/b", "https://[", "https://me:pw@h/x"))
    async with serve(registry):
        with pytest.raises(Unavailable, match="the layer's own URL is not an https one"):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
        sink = sink_for(entry, urls=("https://127.0.0.1:1/x",))
        with pytest.raises(Unavailable, match=r"lies elsewhere, and 127\.0\.0\.1:1: connection refused"):
            await puller().fetch(f"{registry.host}/a", sink.descriptor, sink)
