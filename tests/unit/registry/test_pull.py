"""An image from the test registry, end to end: what a pull asks for, and how often."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from scow.api import Platform, Unsupported, parse_named
from scow.testing.registry import Registry, serve

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


@pytest.mark.parametrize("flavour", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_every_layer_comes_over_one_connection(puller, sink_for, flavour, compression):
    registry = Registry()
    layers = [{"a": b"x" * 300_000}, {"b": b"y"}]
    image = registry.add_image("library/nginx", "latest", layers=layers, flavour=flavour, compression=compression)
    async with serve(registry):
        pull = puller({"docker.io": {"mirrors": [registry.url]}})
        found = await pull.resolve(parse_named("nginx"), AMD64)
        assert str(found.manifest.descriptor.digest) == image.digest
        assert found.source.location == "docker.io/library/nginx"
        for layer in (*image.layers, image.config):
            sink = sink_for(layer)
            await pull.fetch(found.source.location, sink.descriptor, sink)
            assert bytes(sink.data) == registry.blobs[layer["digest"]]
    assert registry.connections == 1
    assert [request.path.split("/")[-2] for request in registry.requests] == ["manifests", "blobs", "blobs", "blobs"]


async def test_several_blobs_at_once(puller, sink_for):
    registry = Registry()
    image = registry.add_image("a", layers=[{str(n): bytes([n]) * 100_000} for n in range(12)], compression="none")
    async with serve(registry):
        pull = puller()
        sinks = [sink_for(layer) for layer in image.layers]
        async with trio.open_nursery() as nursery:
            for sink in sinks:
                nursery.start_soon(pull.fetch, f"{registry.host}/a", sink.descriptor, sink)
    assert [bytes(sink.data) for sink in sinks] == [registry.blobs[layer["digest"]] for layer in image.layers]


async def test_platforms_and_attestations(puller):
    registry = Registry()
    amd = registry.add_image("a", None, layers=[{"a": b"amd"}], platform=AMD64)
    arm = registry.add_image("a", None, layers=[{"a": b"arm"}], platform=ARM64)
    entries = [(AMD64, amd.manifest), (ARM64, arm.manifest)]
    index = registry.add_index("a", "1", entries, attestations=True)
    async with serve(registry):
        pull, name = puller(), parse_named(f"{registry.host}/a:1")
        found = await pull.resolve(name, ARM64)
        assert str(found.manifest.descriptor.digest) == arm.digest
        assert [str(document.descriptor.digest) for document in found.indexes] == [index["digest"]]
        assert str(found.root.digest) == index["digest"]
        with pytest.raises(Unsupported, match=r"a:1 is not there for linux/s390x") as error:
            await pull.resolve(name, Platform("linux", "s390x"))
    assert error.value.hint == "it is there for linux/amd64, linux/arm64"


async def test_nested_indexes_up_to_a_depth(puller):
    registry = Registry()
    entry = registry.add_image("a", None).manifest
    for depth in range(1, 6):
        entry = registry.add_index("a", str(depth), [(AMD64, entry)])
    async with serve(registry):
        pull = puller()
        found = await pull.resolve(parse_named(f"{registry.host}/a:4"), AMD64)
        assert len(found.indexes) == 4
        with pytest.raises(Unsupported, match="more than 4 indexes"):
            await pull.resolve(parse_named(f"{registry.host}/a:5"), AMD64)


async def test_a_digest_beats_the_tag(puller):
    registry = Registry()
    old = registry.add_image("a", "1", layers=[{"a": b"old"}])
    registry.add_image("a", "1", layers=[{"a": b"new"}])
    async with serve(registry):
        found = await puller().resolve(parse_named(f"{registry.host}/a:1@{old.digest}"), AMD64)
    assert str(found.manifest.descriptor.digest) == old.digest


async def test_inline_and_empty_blobs_need_no_request(puller, sink_for):
    registry = Registry()
    data = b"inline"
    entry = {"mediaType": "x", "digest": registry.add_blob(data), "size": len(data)}
    empty = {"mediaType": "x", "digest": registry.add_blob(b""), "size": 0}
    async with serve(registry):
        sink, nothing = sink_for(entry, b"in"), sink_for(empty)
        await puller().fetch(f"{registry.host}/a", replace(sink.descriptor, data=data), sink)
        await puller().fetch(f"{registry.host}/a", nothing.descriptor, nothing)
    assert bytes(sink.data) == data
    assert registry.requests == []
