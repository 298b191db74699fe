"""Mirrors in order, then the registry itself; its word is the last."""

from __future__ import annotations

import pytest

from scow.api import Corrupt, NotFound, Platform, Unavailable, parse_named
from scow.testing.registry import Faults, Registry, serve

AMD64 = Platform("linux", "amd64")


async def test_the_first_that_has_it_serves_it(puller, sink_for):
    empty, full, registry = Registry(), Registry(), Registry()
    image = full.add_image("a")
    registry.add_image("a", layers=[{"other": b""}])
    async with serve(empty), serve(full), serve(registry):
        pull = puller({registry.host: {"mirrors": ["http://127.0.0.1:1", empty.url, full.url]}})
        found = await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
        assert str(found.manifest.descriptor.digest) == image.digest
        sink = sink_for(image.layers[0])
        await pull.fetch(found.source.location, sink.descriptor, sink)
    assert registry.requests == []
    assert len(empty.requests) == 2


@pytest.mark.parametrize("faults", [Faults(errors=-1), Faults(too_many=-1, retry_after="3600"), Faults(auth="basic")])
async def test_a_mirror_with_troubles_is_passed_by_at_once(puller, faults):
    mirror, registry = Registry(faults), Registry()
    image = registry.add_image("a")
    async with serve(mirror), serve(registry):
        pull = puller({registry.host: {"mirrors": [mirror.url]}})
        found = await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert str(found.manifest.descriptor.digest) == image.digest
    assert len(mirror.requests) == 1


async def test_a_mirror_that_cuts_a_blob_is_gone_on_with_elsewhere(puller, sink_for):
    mirror, registry = Registry(Faults(truncate=1000)), Registry()
    image = registry.add_image("a", layers=[{"a": b"x" * 10_000}], compression="none")
    mirror.blobs = registry.blobs
    async with serve(mirror), serve(registry):
        pull = puller({registry.host: {"mirrors": [mirror.url]}})
        sink = sink_for(image.layers[0])
        await pull.fetch(f"{registry.host}/a", sink.descriptor, sink)
    assert registry.requests[0].headers["range"] == "bytes=1000-"


async def test_a_mirror_that_lies_is_not_passed_by_in_silence(puller):
    mirror, registry = Registry(Faults(corrupt_manifests=True)), Registry()
    mirror.add_image("a")
    registry.add_image("a")
    async with serve(mirror), serve(registry):
        with pytest.raises(Corrupt, match=f"mirror {mirror.url} sends"):
            await puller({registry.host: {"mirrors": [mirror.url]}}).resolve(parse_named(f"{registry.host}/a"), AMD64)


async def test_the_registry_says_whether_an_image_exists(puller):
    mirror, registry = Registry(Faults(errors=-1)), Registry()
    async with serve(mirror), serve(registry):
        with pytest.raises(NotFound):
            await puller({registry.host: {"mirrors": [mirror.url]}}).resolve(parse_named(f"{registry.host}/a"), AMD64)
    assert len(mirror.requests) == 1


async def test_the_error_says_what_each_one_answered(puller):
    mirror = Registry()
    async with serve(mirror):
        pull = puller({"127.0.0.1:1": {"mirrors": [mirror.url, "http://127.0.0.1:2"]}})
        with pytest.raises(Unavailable) as error:
            await pull.resolve(parse_named("127.0.0.1:1/a:b"), AMD64)
    assert error.value.message == (
        "image 127.0.0.1:1/a:b is not to be had: "
        f"mirror {mirror.url}: status 404 (MANIFEST_UNKNOWN: manifest unknown); "
        "mirror http://127.0.0.1:2: connection refused; "
        "127.0.0.1:1: connection refused"
    )


async def test_what_is_down_is_asked_last_for_a_while(puller, sink_for):
    registry = Registry()
    image = registry.add_image("a")
    async with serve(registry):
        pull = puller({registry.host: {"mirrors": ["http://127.0.0.1:1"]}})
        await pull.resolve(parse_named(f"{registry.host}/a"), AMD64)
        first = pull._in_order(pull._rules.endpoints(registry.host))[0]
        assert first.host == registry.host
        assert image.digest
