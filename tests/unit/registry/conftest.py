"""What the tests of the registry plugin share: a puller that doesn't wait long, a sink, and no login of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scow.api import Corrupt, Descriptor, Digest
from scow_plugins.registry._puller import Puller
from scow_plugins.registry._retry import Policy
from scow_plugins.registry._settings import read_settings


class MemorySink:
    """The kernel's sink in little: checks size and digest, keeps the bytes."""

    def __init__(self, descriptor: Descriptor, data: bytes = b"") -> None:
        self.descriptor = descriptor
        self.data = bytearray(data)
        self.restarts = 0
        self.writes = 0

    @property
    def offset(self) -> int:
        return len(self.data)

    async def write(self, data: bytes) -> None:
        self.writes += 1
        self.data += data
        if len(self.data) > self.descriptor.size:
            raise Corrupt(f"blob {self.descriptor.digest} is too long")
        complete = len(self.data) == self.descriptor.size
        if complete and hashlib.sha256(self.data).hexdigest() != self.descriptor.digest.hex:
            raise Corrupt(f"blob {self.descriptor.digest} has another digest")

    async def restart(self) -> None:
        self.restarts += 1
        self.data.clear()


QUICK = Policy(rounds=4, first_pause=0.01, longest_pause=0.02, patience=0.5, connect=2, idle=2)


@pytest.fixture(autouse=True)
def docker_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory for Docker's configuration; no proxies."""
    directory = tmp_path / "docker"
    directory.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(directory))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return directory


@pytest.fixture
def puller() -> Callable[..., Puller]:
    def make(registries: dict[str, Any] | None = None, policy: Policy = QUICK) -> Puller:
        return Puller(read_settings({"registries": registries or {}}), policy)

    return make


@pytest.fixture
def sink_for() -> Callable[..., MemorySink]:
    """A sink for a descriptor in JSON; `data` is what it holds already."""

    def make(entry: dict[str, Any], data: bytes = b"", **more: Any) -> MemorySink:
        return MemorySink(Descriptor(entry["mediaType"], Digest.parse(entry["digest"]), entry["size"], **more), data)

    return make
