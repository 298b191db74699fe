"""A pull's memory doesn't grow with the image: layers of several hundred MB go through it in pieces."""

from __future__ import annotations

import os
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import zstandard

from scow.model.digest import Digest
from scow.model.platform import Platform
from scow.testing.registry import Registry, image_config, serve, tar_of

from .conftest import Scow

_MIB = 1 << 20
#: All that a pulling process may take at any moment, interpreter and libraries (about 50 MB of it) included.
MOST = 100 * _MIB
#: How much more it may take for a layer that is ten times as large.
GROWTH = 24 * _MIB


@pytest.fixture(params=[False], ids=["cold"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """The process that is looked at is the one that pulls."""
    return bool(request.param)


def _gzip(data: bytes) -> bytes:
    # Stored: packing noise takes long and comes to nothing.
    packer = zlib.compressobj(0, wbits=31)
    return packer.compress(data) + packer.flush()


_PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": _gzip, "zstd": zstandard.ZstdCompressor(level=1).compress}


def _add(registry: Registry, name: str, megabytes: dict[str, int]) -> None:
    """An image with a layer of noise for each kind of compression."""
    oci = "application/vnd.oci.image"
    noise = os.urandom(16 * _MIB)
    diff_ids, layers = [], []
    for kind, count in megabytes.items():
        tar = tar_of({f"{kind}/{number}": noise[number * 4096 :][:_MIB] for number in range(count)})
        blob = _PACKERS[kind](tar)
        diff_ids.append(str(Digest.of(tar)))
        media_type = f"{oci}.layer.v1.tar+{kind}"
        layers.append({"mediaType": media_type, "digest": registry.add_blob(blob), "size": len(blob)})
    config = image_config(diff_ids, {}, Platform.host())
    about = {"mediaType": f"{oci}.config.v1+json", "digest": registry.add_blob(config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": f"{oci}.manifest.v1+json", "config": about, "layers": layers}
    registry.add_manifest(name, "latest", f"{oci}.manifest.v1+json", manifest)


def _peak(scow: Scow, *arguments: str) -> int:
    """The most memory (RSS, bytes) that a command had; not from wait4(2), which counts what forked it as well."""
    process = scow.start(*arguments, stdout=subprocess.DEVNULL)
    most = 0
    while process.poll() is None:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        most = max([most, *(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))])
        time.sleep(0.01)
    assert process.returncode == 0
    return most


async def test_a_pull_takes_no_more_for_large_layers(scow: Scow) -> None:
    registry = Registry()
    _add(registry, "small", {"gzip": 20, "zstd": 10})
    _add(registry, "large", {"gzip": 200, "zstd": 100})
    peaks = []
    async with serve(registry):
        for name in ("small", "large"):
            peaks.append(await trio.to_thread.run_sync(_peak, scow, "pull", "-q", f"{registry.host}/{name}"))
    small, large = peaks
    assert small > 20 * _MIB
    assert large < min(small + GROWTH, MOST), f"{small / _MIB:.0f} and {large / _MIB:.0f} MiB"
