"""Cancelled at every scheduling step there is, nothing may be left over: no lock, no file, no thread, no descriptor."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from tests.unit.kernel.conftest import Toy, core_of, paths, stages_of, toy  # noqa: F401 - fixtures

from scow.api import Descriptor, Digest, MountRequest, Platform
from scow.content.store import ContentStore
from scow.engine import images
from scow.engine.core import Core
from scow.errors import ScowError
from scow.stages import Stages
from scow.state import images as rows

LIMIT = 3000


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the n-th step of any task is about to run."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self.left = step
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self._scope.cancel()


def sweep(body: Callable[[], Awaitable[object]], check: Callable[[int], None], stride: int = 1) -> int:
    """Run `body` cancelled at step 1, 2, …, until it ends before its cancellation; `check` after each run."""
    descriptors = len(os.listdir("/proc/self/fd"))
    for step in range(1, LIMIT, stride):
        scope = trio.CancelScope()
        instrument = CancelAt(step, scope)

        async def main(scope: trio.CancelScope = scope) -> None:
            with trio.fail_after(20), scope:
                await body()

        trio.run(main, instruments=[instrument])
        check(step)
        assert len(os.listdir("/proc/self/fd")) <= descriptors, f"step {step} leaks a descriptor"
        if instrument.left > 0:
            return step
    raise AssertionError(f"still not done after {LIMIT} steps")


HOLDS = """
log = []
@asynccontextmanager
async def held():
    await trio.lowlevel.checkpoint()
    log.append("acquire")
    try:
        await trio.lowlevel.checkpoint()
        yield Rootfs("a", 7)
        await trio.lowlevel.checkpoint()
    finally:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
        log.append("release")
class Plugin(Base):
    log = log
    @hookimpl
    def mount(self, request): return held()
"""


def test_a_held_stage(toy: Toy, stages_of: Any) -> None:  # noqa: F811
    found = toy("a", "mount", HOLDS)
    stages: Stages = stages_of(found)[0]
    request = MountRequest("a", "c", (), Path("/nowhere"), cast(Any, None))

    async def body() -> None:
        async with stages.mount(request):
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()

    def check(step: int) -> None:
        log = found[0].load().log  # type: ignore[attr-defined]
        assert log in ([], ["acquire", "release"]), f"step {step}"
        log.clear()

    assert sweep(body, check) > 8


DATA = os.urandom((1 << 20) * 2 + 5)


def test_taking_in_a_blob(tmp_path: Path) -> None:
    store = ContentStore(tmp_path / "content")
    store.prepare()
    descriptor = Descriptor("t", Digest.of(DATA), len(DATA))
    blob = store.blob(descriptor.digest)

    def read(ingest: Any) -> None:
        try:
            with ingest.open() as file:
                assert DATA.startswith(file.read()[:100])
        except ScowError:
            pass

    async def body() -> None:
        async with trio.open_nursery() as nursery, store.ingest(descriptor) as ingest:
            nursery.start_soon(trio.to_thread.run_sync, read, ingest)
            for start in range(ingest.offset, len(DATA), 400_000):
                await ingest.write(DATA[start : start + 400_000])
            await ingest.commit()

    def check(step: int) -> None:
        if blob.exists():
            assert blob.read_bytes() == DATA, f"step {step}"
            blob.unlink()
        for left in (store.path / "ingest").iterdir():
            assert DATA.startswith(left.read_bytes()), f"step {step}"
            if step % 2:
                left.unlink()  # half of the tries begin anew, half go on

    assert sweep(body, check) > 8


PULLS = """
import hashlib, os, json
from pathlib import Path
SHELF = Path({shelf!r})
class Plugin(Base):
    @hookimpl
    def resolve(self, reference, platform):
        async def run():
            await trio.lowlevel.checkpoint()
            data = (SHELF / "manifest").read_bytes()
            document = Document(Descriptor(OCI_MANIFEST, Digest.of(data), len(data)), data)
            return Resolved(reference, document, Source("toy", "shelf"))
        return run
    @hookimpl
    def fetch(self, source, descriptor):
        async def run(sink):
            data = (SHELF / descriptor.digest.hex).read_bytes()
            for start in range(sink.offset, len(data), 700):
                await sink.write(data[start : start + 700])
        return run
    @hookimpl
    def unpack(self, request):
        async def run():
            target = self.context.state_dir / request.chain_id.hex
            def work():
                with request.blob.open() as file:
                    data = file.read()
                part = target.with_suffix(".part")
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(data)
                part.rename(target)
            await trio.to_thread.run_sync(work)
            return Snapshot("toy", request.chain_id, target)
        return run
    @hookimpl
    def mount(self, request): return None
    def find(self, chain_id):
        target = self.context.state_dir / chain_id.hex
        return Snapshot("toy", chain_id, target) if target.exists() else None
"""


def shelve(shelf: Path) -> list[bytes]:
    """An image of four layers, two of them the same, as files named by digest."""
    shelf.mkdir()

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        hexa = hashlib.sha256(data).hexdigest()
        (shelf / hexa).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{hexa}", "size": len(data)}

    layers, diff_ids = [], []
    for number in (1, 2, 1, 3):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(f"file{number}"))
        diff_ids.append(str(Digest.of(buffer.getvalue())))
        layers.append(gzip.compress(buffer.getvalue() + bytes(number), mtime=0))
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "config": put(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [put(layer, "application/vnd.oci.image.layer.v1.tar+gzip") for layer in layers],
    }
    (shelf / "manifest").write_bytes(json.dumps(manifest).encode())
    return layers


@pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning")
def test_a_pull(toy: Toy, core_of: Callable[..., Core], tmp_path: Path) -> None:  # noqa: F811
    layers = shelve(tmp_path / "shelf")
    found = toy("toy", "resolve fetch unpack mount", PULLS.format(shelf=str(tmp_path / "shelf")))
    core = core_of(found)
    state = core.paths.root / "storage" / "toy"
    state_dirs = {core.paths.root / kind / "toy" for kind in ("image", "storage")} | {state}

    async def body() -> None:
        await images.pull(core, "nginx", Platform("linux", "amd64"), lambda _: None, "toy")

    def snapshots() -> list[Path]:
        return [path for folder in state_dirs if folder.is_dir() for path in folder.iterdir()]

    def check(step: int) -> None:
        assert threading.active_count() < 40
        for snapshot in snapshots():
            assert snapshot.suffix == "", f"step {step}: {snapshot.name} is half made"
            assert snapshot.read_bytes() in layers
        for image in rows.all_images(core.database):
            images.describe(core, image, rows.names_of(core.database))
            assert len(snapshots()) == 4
        for blob in (core.content.path / "blobs" / "sha256").iterdir():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
            if step % 3:
                blob.unlink()
        for snapshot in snapshots():
            if step % 2:
                snapshot.unlink()
        with core.database.write() as connection:
            for table in ("names", "digests", "images"):
                connection.execute(f"DELETE FROM {table}")

    assert sweep(body, check) > 20
    check(0)
    trio.run(body)
    assert len(snapshots()) == 4


def test_a_cancelled_pull_is_cancelled(toy: Toy, core_of: Callable[..., Core], tmp_path: Path) -> None:  # noqa: F811
    """That the reader of a blob was told "the fetch was given up" is no failure of the pull."""
    shelve(tmp_path / "shelf")
    source = PULLS.format(shelf=str(tmp_path / "shelf")).replace(
        "for start in", "await trio.sleep(3600 if len(data) < 150 else 0)\n            for start in"
    )
    core = core_of(toy("toy", "resolve fetch unpack mount", source))

    async def main() -> bool:
        with trio.move_on_after(0.2) as scope:
            await images.pull(core, "nginx", Platform("linux", "amd64"), lambda _: None, "toy")
        return scope.cancelled_caught

    assert trio.run(main)
