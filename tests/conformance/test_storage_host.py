"""`host:` is a valid image, its containers see the machine but not the engine, and no other image can name it."""

# ruff: noqa: ASYNC240 - these look at small local files

from __future__ import annotations

from pathlib import Path

import pytest

from scow.api import (
    Corrupt,
    Digest,
    Invalid,
    Located,
    Manifest,
    Platform,
    PluginContext,
    UnpackRequest,
    Unsupported,
    chain_ids,
    parse_config,
    parse_document,
)
from scow.testing.layers import BytesBlob, archive, file
from scow.testing.storage import Storage
from scow_plugins.host import Plugin

pytestmark = pytest.mark.root


class _Sink:
    offset = 0
    data = b""

    async def write(self, data: bytes) -> None:
        self.data += data

    async def restart(self) -> None:
        self.data = b""


async def _request(plugin: Plugin, driver: str) -> UnpackRequest:
    run = plugin.resolve(Located("host", ""), Platform.host())
    assert run is not None
    resolved = await run()
    manifest = parse_document(resolved.manifest.data, "")
    assert isinstance(manifest, Manifest)
    sink = _Sink()
    fetch = plugin.fetch(resolved.source, manifest.config)
    assert fetch is not None
    await fetch(sink)
    assert Digest.of(sink.data) == manifest.config.digest
    config = parse_config(sink.data)
    layer = manifest.layers[0]
    assert layer.data is not None
    return UnpackRequest(driver, layer, config.diff_ids[0], config.chain[0], (), BytesBlob(layer.data))


def _plugin(base: Path) -> Plugin:
    return Plugin(PluginContext("host", base / "host", base / "run", {}))


async def test_a_copy_of_the_machine(tmp_path: Path) -> None:
    plugin, storage = _plugin(tmp_path), Storage("scow_plugins.overlay:Plugin", "overlay", tmp_path)
    if (unavailable := storage.plugin.probe()) is not None:
        pytest.skip(unavailable.reason)
    run = plugin.unpack(await _request(plugin, "overlay"))
    assert run is not None
    snapshot = await run()
    assert plugin.find(snapshot.chain_id) == snapshot
    inside = str(tmp_path).lstrip("/")
    for _ in range(2):
        async with storage.mounted((snapshot,)) as root:
            assert (root / "etc/passwd").read_bytes() == Path("/etc/passwd").read_bytes()
            assert list((root / inside).iterdir()) == []
            assert (root / inside).stat().st_mode == tmp_path.stat().st_mode
            (root / "etc/scow-test").write_bytes(b"x")
    assert not Path("/etc/scow-test").exists()
    layer = archive(file("etc/scow-test", b"layer"))
    above = await storage.run(storage.request(layer, (snapshot,)))
    async with storage.mounted((snapshot, above), "above") as root:
        assert (root / "etc/scow-test").read_bytes() == b"layer"
        assert (root / "etc/passwd").exists()


async def test_what_it_refuses(tmp_path: Path) -> None:
    plugin = _plugin(tmp_path)
    with pytest.raises(Invalid, match="nothing may follow"):
        await plugin.resolve(Located("host", "x"), Platform.host())()  # type: ignore[misc]
    with pytest.raises(Unsupported):
        await plugin.resolve(Located("host", ""), Platform("linux", "s390x"))()  # type: ignore[misc]
    with pytest.raises(Unsupported, match="plain copy"):
        await plugin.unpack(await _request(plugin, "native"))()  # type: ignore[misc]
    mine = await _request(plugin, "overlay")
    foreign = Digest.of(b"another machine's")
    for diff_id, chain in (
        (foreign, foreign),
        (foreign, mine.chain_id),
        (mine.diff_id, chain_ids((foreign, mine.diff_id))[1]),
    ):
        request = UnpackRequest("overlay", mine.layer, diff_id, chain, (), mine.blob)
        with pytest.raises(Corrupt, match="claims to be"):
            await plugin.unpack(request)()  # type: ignore[misc]
