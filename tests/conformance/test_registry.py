"""Debian's own docker-registry, images pushed by skopeo: Docker and OCI manifests, gzip, zstd and plain layers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trio

from scow.api import (
    DOCKER_MANIFEST,
    OCI_MANIFEST,
    Descriptor,
    Digest,
    Manifest,
    NotFound,
    Platform,
    PluginContext,
    Resolved,
    Source,
    Unsupported,
    parse_config,
    parse_document,
    parse_named,
)
from scow.testing.registry import Registry, image_config, tar_of
from scow_plugins.registry import Plugin

for _program in ("docker-registry", "skopeo"):
    if shutil.which(_program) is None:
        pytest.skip(f"{_program} is not installed", allow_module_level=True)

HOST = Platform.host()
OTHER = Platform("linux", "s390x")


class FileSink:
    """Counts and hashes, as the kernel's sink does."""

    def __init__(self) -> None:
        self.offset = 0
        self.hash = hashlib.sha256()
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        self.hash.update(data)
        self.data += data
        self.offset += len(data)

    async def restart(self) -> None:
        raise AssertionError("docker-registry serves ranges")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A docker-registry on a free port of loopback."""
    home = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(home / "store")}},
        "http": {"addr": address},
    }
    (home / "config.yml").write_text(json.dumps(config))
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(home / "config.yml")], stdout=log, stderr=log)
    try:
        _wait_for(address, process)
        yield address
    finally:
        process.kill()
        process.wait()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    name, _, port = address.partition(":")
    for _ in range(200):
        assert process.poll() is None, "docker-registry ended at once"
        with contextlib.suppress(OSError), socket.create_connection((name, int(port)), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("docker-registry doesn't listen")


def layers_of(name: str) -> tuple[bytes, ...]:
    """Three tars that no other test has: skopeo remembers blobs, and would send the compression of before."""
    return tuple(tar_of({f"{n}/": b"", f"{n}/data": name.encode() * 40_000}) for n in range(3))


def write_layout(directory: Path, store: Registry, entry: Mapping[str, object]) -> Path:
    """An OCI layout with all that a store holds, `entry` being its image; made without any tool."""
    (directory / "blobs" / "sha256").mkdir(parents=True)
    for _, data in list(store.manifests.values()):
        store.add_blob(data)
    for digest, data in store.blobs.items():
        (directory / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    named = {**entry, "annotations": {"org.opencontainers.image.ref.name": "latest"}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return directory


def one_image(directory: Path, name: str) -> Path:
    """A layout with one image of plain layers."""
    store = Registry()
    image = store.add_image("a", layers=layers_of(name), compression="none", config={"Cmd": ["/bin/true"]})
    return write_layout(directory, store, image.manifest)


@pytest.fixture
def plugin(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """The plugin with docker.io mirrored by the registry, and nobody's logins."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    settings = {"registries": {"docker.io": {"mirrors": [f"http://{host}"]}}}
    return Plugin(PluginContext("registry", tmp_path / "state", tmp_path / "run", settings))


def push(layout: Path, host: str, name: str, *options: str) -> None:
    command = ["skopeo", "copy", "-q", "--dest-tls-verify=false", *options, f"oci:{layout}:latest"]
    subprocess.run([*command, f"docker://{host}/{name}"], check=True, capture_output=True, timeout=60)


async def pull(plugin: Plugin, name: str, platform: Platform = HOST) -> Resolved:
    run = plugin.resolve(parse_named(name), platform)
    assert run is not None
    return await run()


async def fetch(plugin: Plugin, source: Source, descriptor: Descriptor, sink: FileSink) -> None:
    run = plugin.fetch(source, descriptor)
    assert run is not None
    await run(sink)
    assert (sink.hash.hexdigest(), sink.offset) == (descriptor.digest.hex, descriptor.size)


@pytest.mark.parametrize(
    ("name", "options", "media_type", "compression"),
    [
        ("docker-gzip", ("-f", "v2s2"), DOCKER_MANIFEST, "gzip"),
        ("oci-gzip", ("-f", "oci", "--dest-compress-format", "gzip"), OCI_MANIFEST, "gzip"),
        ("oci-zstd", ("-f", "oci", "--dest-compress-format", "zstd"), OCI_MANIFEST, "zstd"),
        ("oci-plain", ("-f", "oci", "--preserve-digests"), OCI_MANIFEST, "tar"),
    ],
)
async def test_what_skopeo_pushed(
    plugin: Plugin, host: str, tmp_path: Path, name: str, options: tuple[str, ...], media_type: str, compression: str
) -> None:
    layout = one_image(tmp_path / "layout", name)
    await trio.to_thread.run_sync(lambda: push(layout, host, f"library/{name}:1", *options))
    found = await pull(plugin, f"{name}:1")
    assert found.manifest.descriptor.media_type == media_type
    manifest = parse_document(found.manifest.data, media_type)
    assert isinstance(manifest, Manifest)
    assert [layer.media_type.endswith(compression) for layer in manifest.layers] == [True] * 3
    sinks = [FileSink() for _ in manifest.layers]
    async with trio.open_nursery() as nursery:
        for layer, sink in zip(manifest.layers, sinks, strict=True):
            nursery.start_soon(fetch, plugin, found.source, layer, sink)
    config = FileSink()
    await fetch(plugin, found.source, manifest.config, config)
    assert parse_config(bytes(config.data)).diff_ids == tuple(Digest.of(layer) for layer in layers_of(name))
    # By digest it is the same, straight from the registry's own name.
    pinned = await pull(plugin, f"{host}/library/{name}@{found.manifest.descriptor.digest}")
    assert pinned.manifest == found.manifest


async def test_a_range_is_gone_on_with(plugin: Plugin, host: str, tmp_path: Path) -> None:
    layout, tar = one_image(tmp_path / "layout", "range"), layers_of("range")[0]
    await trio.to_thread.run_sync(lambda: push(layout, host, "library/range:1", "--preserve-digests"))
    found = await pull(plugin, "range:1")
    manifest = parse_document(found.manifest.data, OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    sink = FileSink()
    await sink.write(tar[:1000])
    await fetch(plugin, found.source, manifest.layers[0], sink)
    assert bytes(sink.data) == tar


async def test_an_index(plugin: Plugin, host: str, tmp_path: Path) -> None:
    store = Registry()
    mine, other = (store.add_image("a", None, platform=platform) for platform in (HOST, OTHER))
    index = store.add_index("a", "latest", [(OTHER, other.manifest), (HOST, mine.manifest)])
    layout = write_layout(tmp_path / "layout", store, index)
    await trio.to_thread.run_sync(lambda: push(layout, host, "library/many:1", "--all", "--preserve-digests"))
    found = await pull(plugin, "many:1")
    assert (str(found.root.digest), str(found.manifest.descriptor.digest)) == (index["digest"], mine.digest)
    found = await pull(plugin, "many:1", OTHER)
    assert str(found.manifest.descriptor.digest) == other.digest
    with pytest.raises(Unsupported, match="not there for linux/riscv64"):
        await pull(plugin, "many:1", Platform("linux", "riscv64"))


async def test_what_is_not_there(plugin: Plugin, host: str) -> None:
    with pytest.raises(NotFound, match=f"image {host}/nothing:1 not found in {host}"):
        await pull(plugin, f"{host}/nothing:1")
    descriptor = Descriptor("application/x", Digest.of(image_config((), {}, HOST)), 5)
    with pytest.raises(NotFound, match="blob sha256:"):
        await fetch(plugin, Source("registry", f"{host}/nothing"), descriptor, FileSink())
