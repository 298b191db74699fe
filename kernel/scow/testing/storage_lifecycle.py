"""Checks of storage drivers: at once, cancelled, killed; many layers; removal."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO, cast

import trio

from scow.errors import NotFound, Unavailable
from scow.model.descriptor import OCI_LAYER
from scow.model.digest import Digest
from scow.testing.layers import BytesBlob, archive, contents, directory, file
from scow.testing.storage import Storage

#: Longer than anything here takes, in seconds.
_LONG = 60


class _Stalling(io.RawIOBase):
    """Gives half of the data, then waits until the reader is closed or somebody stops it."""

    def __init__(self, data: bytes) -> None:
        self._reader = io.BytesIO(data[: len(data) // 2])
        self.stalled = False
        self.given_up = False

    def read(self, size: int = -1) -> bytes:
        data = self._reader.read(min(size, 1000))
        if not data:
            self.stalled = True
            while not self.given_up:
                time.sleep(0.01)
            raise Unavailable("the rest will never come")
        return data


def _many(count: int = 300) -> bytes:
    return archive(directory("d"), *(file(f"d/{number}", b"%d" % number * 500) for number in range(count)))


async def check_found_again(storage: Storage) -> None:
    """A snapshot that is there isn't made again, has a size, and goes when it is removed."""
    layer = archive(file("f", b"x" * 10_000))
    (snapshot,) = await storage.unpack(layer)
    request = storage.request(layer, (), BytesBlob(b"never read"))
    assert await storage.run(request) == snapshot == storage.plugin.find(snapshot.chain_id)
    assert storage.plugin.snapshots() == [snapshot.chain_id]
    assert 10_000 <= storage.plugin.usage(snapshot.chain_id) <= 100_000
    storage.plugin.remove(snapshot.chain_id)
    storage.plugin.remove(snapshot.chain_id)
    assert storage.plugin.find(snapshot.chain_id) is None
    assert not snapshot.path.exists()
    storage.check_empty()
    try:
        storage.plugin.usage(snapshot.chain_id)
    except NotFound:
        return
    raise AssertionError("a snapshot that isn't there has a size")


async def check_cancelled_in_the_middle(storage: Storage) -> None:
    """Cancelling stops soon and leaves nothing, although the sender has fallen silent."""
    data = _many()
    reader = _Stalling(data)
    blob = BytesBlob(data, OCI_LAYER, lambda _: cast(BinaryIO, reader))
    try:
        with trio.fail_after(_LONG):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(storage.run, storage.request(data, (), blob))
                while not reader.stalled:  # noqa: ASYNC110 - a thread sets it
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
    finally:
        reader.given_up = True
    storage.check_empty()
    await storage.unpack(data)


async def check_sender_gives_up(storage: Storage) -> None:
    """The fetch's own error comes through as it is."""
    data = _many()
    reader = _Stalling(data)
    reader.given_up = True
    try:
        await storage.run(storage.request(data, (), BytesBlob(data, OCI_LAYER, lambda _: cast(BinaryIO, reader))))
    except Unavailable:
        storage.check_empty()
        return
    raise AssertionError("half a layer was unpacked")


async def check_several_at_once(storage: Storage) -> None:
    """Tasks and processes that unpack the same layer at the same time all get the same snapshot."""
    data = _many()
    path = storage.base / "layer"
    path.write_bytes(data)
    children = [_child(storage, path, "go") for _ in range(2)]
    found = []

    async def one() -> None:
        found.append(await storage.run(storage.request(data, (), BytesBlob(data))))

    with trio.fail_after(_LONG):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(one)
        for child in children:
            assert (await trio.to_thread.run_sync(child.communicate))[0] == b"done\n"
            assert child.returncode == 0
    assert len({snapshot.path for snapshot in found}) == 1
    assert len(storage.plugin.snapshots()) == 1
    async with storage.mounted((found[0],)) as root:
        assert len(contents(root)) == 301


async def check_killed_in_the_middle(storage: Storage) -> None:
    """What a killed process has left is gone with the next unpacking, of this layer or another one."""
    data = _many()
    path = storage.base / "layer"
    path.write_bytes(data)
    for next_layer in (archive(file("other")), data):
        child = _child(storage, path, "stall")
        try:
            assert child.stdout is not None
            assert await trio.to_thread.run_sync(child.stdout.readline) == b"half\n"
            before = storage.plugin.snapshots()
            # A living process's work is left alone.
            await storage.unpack(archive(file("meanwhile")))
            assert _parts(storage) > 0
        finally:
            child.send_signal(signal.SIGKILL)
            await trio.to_thread.run_sync(child.communicate)
        assert Digest.of(data) not in before
        await storage.unpack(next_layer)
        assert _parts(storage) == 0


def _mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def _parts(storage: Storage) -> int:
    """Files that belong to no committed snapshot."""
    return sum(len(files) for _, _, files in os.walk(storage.base / "state" / "staging"))


async def check_many_layers(storage: Storage) -> None:
    """Two hundred layers stack."""
    snapshots = await storage.unpack(*(archive(file(f"f{number}", b"x")) for number in range(200)))
    async with storage.mounted(snapshots) as root:
        assert len(contents(root)) == 200


async def check_one_container_one_mount(storage: Storage) -> None:
    """Leaving a mount releases everything: descriptors and mounts are as before."""
    snapshots = await storage.unpack(archive(file("f")), archive(file("g")))
    async with storage.mounted(snapshots):
        pass
    fds, mounts = len(os.listdir("/proc/self/fd")), _mounts()
    for _ in range(3):
        async with storage.mounted(snapshots):
            pass
    assert len(os.listdir("/proc/self/fd")) == fds
    assert _mounts() == mounts


async def check_erase(storage: Storage) -> None:
    """A container's layer goes, however deep it is, with links in it that lead out."""
    outside = storage.base / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"stays")
    snapshots = await storage.unpack(archive(file("f")))
    async with storage.mounted(snapshots) as root:
        (root / "link").symlink_to(outside)
        _dig(os.open(root, os.O_RDONLY), 3000)
    scratch = storage.base / "scratch" / "one"
    storage.plugin.erase(scratch)
    assert os.listdir(scratch) == []
    assert (outside / "f").read_bytes() == b"stays"


def _dig(here: int, levels: int) -> None:
    """Directories in each other, beneath the one that `here` is; closes it. A driver may end where paths do."""
    try:
        for level in range(levels):
            try:
                os.mkdir("deep", dir_fd=here)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG or level * len("deep/") < 4000:
                    raise
                return
            inner = os.open("deep", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)


async def check_killed_while_mounted(storage: Storage) -> None:
    """A holder's kill -9 leaves what it wrote, and nothing else once `reclaim` got what was journalled, even twice."""
    data = archive(file("f", b"image"))
    path = storage.base / "layer"
    path.write_bytes(data)
    mounts = _mounts()
    child = _child(storage, path, "mount")
    try:
        assert child.stdout is not None
        held = json.loads(await trio.to_thread.run_sync(child.stdout.readline))
    finally:
        child.kill()
        await trio.to_thread.run_sync(child.communicate)
    for _ in range(2):
        for handle in held:
            storage.plugin.reclaim(handle)
    assert _users(storage.base / "scratch") == []
    assert _mounts() == mounts
    snapshots = await storage.unpack(data)
    async with storage.mounted(snapshots) as root:
        assert contents(root) == {"f": b"image", "written": b"before the end"}


def _users(place: Path) -> list[str]:
    """Processes that have something beneath `place` open, each by its command."""
    found = []
    for links in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(os.readlink(link).startswith(str(place)) for link in links.iterdir()):
                found.append(links.with_name("cmdline").read_text())
        except OSError:
            continue  # it has just ended
    return found


def _child(storage: Storage, layer: os.PathLike[str], mode: str) -> subprocess.Popen[bytes]:
    """Another process that unpacks the same layer with the same driver."""
    arguments = (storage.factory, storage.driver, str(storage.base), os.fspath(layer), mode)
    return subprocess.Popen([sys.executable, "-m", "scow.testing.storage_child", *arguments], stdout=subprocess.PIPE)
