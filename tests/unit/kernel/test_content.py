"""The content store: whole blobs or none, whatever is cut, killed or full."""

# ruff: noqa: PT012, ASYNC110, SIM117
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from scow.content.ingest import Ingest
from scow.content.store import ContentStore, replace_file
from scow.content.stored import StoredBlob
from scow.errors import Corrupt, Exhausted, NotFound, ScowError, Unavailable
from scow.model.descriptor import Descriptor, Document
from scow.model.digest import Digest
from scow.model.storage import Blob
from scow.sys.mounts import mount, umount

MIB = 1 << 20
DATA = os.urandom(3 * MIB + 5)


def descriptor(data: bytes, size: int | None = None) -> Descriptor:
    return Descriptor("t", Digest.of(data), len(data) if size is None else size)


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    made = ContentStore(tmp_path / "content")
    made.prepare()
    return made


def leftovers(store: ContentStore) -> list[str]:
    return sorted(path.name for path in (store.path / "ingest").iterdir())


async def take_in(store: ContentStore, data: bytes, pieces: int = 100_000) -> None:
    async with store.ingest(descriptor(data)) as ingest:
        for start in range(ingest.offset, len(data), pieces):
            await ingest.write(data[start : start + pieces])
        await ingest.commit()


def test_layout(store: ContentStore) -> None:
    assert json.loads((store.path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((store.path / "index.json").read_text())["manifests"] == []
    store.prepare()


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, len(DATA)])
async def test_take_in(store: ContentStore, size: int) -> None:
    data = DATA[:size]
    assert not store.has(descriptor(data))
    await take_in(store, data)
    assert store.has(descriptor(data))
    assert store.read(Digest.of(data), len(DATA)) == data
    assert leftovers(store) == []
    assert read_all(StoredBlob(descriptor(data), store.blob(Digest.of(data)))) == data
    async with store.ingest(descriptor(data)) as ingest:
        assert ingest.present
        assert read_all(ingest) == data
    assert leftovers(store) == []


async def test_a_cut_is_taken_up(store: ContentStore) -> None:
    with pytest.raises(Unavailable):
        async with store.ingest(descriptor(DATA)) as ingest:
            await ingest.write(DATA[: 2 * MIB])
            raise Unavailable("cut")
    async with store.ingest(descriptor(DATA)) as ingest:
        assert ingest.offset == 2 * MIB
        await ingest.write(DATA[2 * MIB :])
        await ingest.commit()
    assert store.has(descriptor(DATA))


async def test_restart(store: ContentStore) -> None:
    async with store.ingest(descriptor(DATA)) as ingest:
        await ingest.write(b"x" * (2 * MIB))
        await ingest.restart()
        assert ingest.offset == 0
        await ingest.write(DATA)
        await ingest.commit()
    assert store.has(descriptor(DATA))


async def test_restart_after_too_much(store: ContentStore) -> None:
    """A plugin may try its next mirror when the first one sent nonsense."""
    small = b"small"
    async with store.ingest(descriptor(small)) as ingest:
        with pytest.raises(Corrupt):
            await ingest.write(DATA)
        await ingest.restart()
        await ingest.write(small)
        await ingest.commit()
    assert store.read(Digest.of(small), 10) == small


async def test_retry_after_a_wrong_digest(store: ContentStore) -> None:
    async with store.ingest(descriptor(DATA)) as ingest:
        await ingest.write(b"x" * len(DATA))
        with pytest.raises(Corrupt):
            await ingest.commit()
        assert ingest.offset == 0
        await ingest.write(DATA)
        await ingest.commit()
    assert store.has(descriptor(DATA))


@pytest.mark.parametrize("sent", [b"x" * len(DATA), DATA[:-1], DATA + b"x", b""])
async def test_corrupt_bytes_are_forgotten(store: ContentStore, sent: bytes) -> None:
    with pytest.raises(Corrupt):
        async with store.ingest(descriptor(DATA)) as ingest:
            await ingest.write(sent)
            await ingest.commit()
    assert not store.has(descriptor(DATA))
    async with store.ingest(descriptor(DATA)) as ingest:
        assert ingest.offset == 0


async def test_a_damaged_leftover_is_not_the_senders_fault(store: ContentStore) -> None:
    """After a power cut a file may have its size without its bytes."""
    partial = store.path / "ingest" / f"sha256-{Digest.of(DATA).hex}"
    partial.write_bytes(bytes(len(DATA)))
    async with store.ingest(descriptor(DATA)) as ingest:
        assert ingest.offset == 0
    partial.write_bytes(DATA)
    async with store.ingest(descriptor(DATA)) as ingest:
        assert ingest.offset == len(DATA)
        await ingest.commit()
    partial.write_bytes(DATA + b"x")


async def test_an_error_after_the_commit_keeps_the_blob(store: ContentStore) -> None:
    with pytest.raises(Corrupt):
        async with store.ingest(descriptor(DATA)) as ingest:
            await ingest.write(DATA)
            await ingest.commit()
            raise Corrupt("something else")
    assert store.read(Digest.of(DATA), len(DATA)) == DATA


def read_all(blob: Blob) -> bytes:
    with blob.open() as file:
        return file.read()


async def test_reading_while_it_grows(store: ContentStore) -> None:
    got: list[bytes] = []

    async def reader(ingest: Ingest) -> None:
        got.append(await trio.to_thread.run_sync(read_all, ingest))

    async with store.ingest(descriptor(DATA)) as ingest, trio.open_nursery() as nursery:
        nursery.start_soon(reader, ingest)
        nursery.start_soon(reader, ingest)
        for start in range(0, len(DATA), 700_000):
            await ingest.write(DATA[start : start + 700_000])
            await trio.sleep(0.001)
        await ingest.commit()
    assert got == [DATA, DATA]


async def test_reader_waits_through_a_restart(store: ContentStore) -> None:
    async with store.ingest(descriptor(DATA)) as ingest, trio.open_nursery() as nursery:
        await ingest.write(DATA[: 2 * MIB])
        with ingest.open() as file:
            assert await trio.to_thread.run_sync(file.read, MIB) == DATA[:MIB]
            got: list[bytes] = []

            async def rest() -> None:
                got.append(await trio.to_thread.run_sync(file.read))

            await ingest.restart()
            nursery.start_soon(rest)
            await trio.sleep(0.01)
            await ingest.write(DATA)
            await ingest.commit()
            while not got:
                await trio.sleep(0.001)
    assert got == [DATA[MIB:]]


def test_reader_survives_a_truncation_under_its_hands(store: ContentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between "there are bytes" and the read, the writer may start again: that is no end of the file."""
    small = b"0123456789"
    real = os.preadv
    calls = []

    async def main() -> None:
        async with store.ingest(descriptor(small)) as ingest:
            await ingest.write(small)
            await ingest._flush()

            def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
                calls.append(offset)
                if len(calls) == 1:
                    return 0
                return real(fd, buffers, offset)

            monkeypatch.setattr(os, "preadv", preadv)
            assert await trio.to_thread.run_sync(read_all, ingest) == small

    trio.run(main)


@pytest.mark.parametrize("error", [Unavailable("gone"), Corrupt("bad"), KeyError("x")])
async def test_readers_are_told_why(store: ContentStore, error: Exception) -> None:
    failures: list[BaseException] = []

    async def reader(ingest: Ingest) -> None:
        try:
            await trio.to_thread.run_sync(read_all, ingest)
        except ScowError as failure:
            failures.append(failure)

    async with trio.open_nursery() as nursery:
        with pytest.raises(type(error)):
            async with store.ingest(descriptor(DATA)) as ingest:
                nursery.start_soon(reader, ingest)
                await ingest.write(DATA[: 2 * MIB])
                await trio.sleep(0.02)
                raise error
    if isinstance(error, ScowError):
        assert failures == [error]
    else:
        assert isinstance(failures[0], Unavailable)


async def test_readers_end_when_the_writer_is_cancelled(store: ContentStore) -> None:
    async with trio.open_nursery() as nursery:
        caught: list[ScowError] = []

        async def reader(ingest: Ingest) -> None:
            try:
                await trio.to_thread.run_sync(read_all, ingest)
            except ScowError as error:
                caught.append(error)

        with trio.move_on_after(0.02):
            async with store.ingest(descriptor(DATA)) as ingest:
                nursery.start_soon(reader, ingest)
                await trio.sleep_forever()
    assert isinstance(caught[0], Unavailable)


async def test_the_second_waits_for_the_first(store: ContentStore) -> None:
    order: list[str] = []

    async def second() -> None:
        async with store.ingest(descriptor(DATA)) as ingest:
            order.append("second")
            assert ingest.present

    async with trio.open_nursery() as nursery:
        async with store.ingest(descriptor(DATA)) as ingest:
            nursery.start_soon(second)
            await trio.sleep(0.08)
            await ingest.write(DATA)
            await ingest.commit()
            order.append("first")
    assert order == ["first", "second"]


CHILD = """
import sys, trio
from pathlib import Path
from scow.content.store import ContentStore
from scow.model.descriptor import Descriptor
from scow.model.digest import Digest
data = sys.stdin.buffer.read()
async def main():
    async with ContentStore(Path(sys.argv[1])).ingest(Descriptor("t", Digest.of(data), len(data))) as ingest:
        if ingest.present:
            print("present", flush=True)
            return
        at = ingest.offset
        await ingest.write(data[at : 2 << 20])
        print("half", flush=True)
        await trio.sleep(float(sys.argv[2]))
        await ingest.write(data[2 << 20 :])
        await ingest.commit()
        print("done", flush=True)
trio.run(main)
"""


def child(store: ContentStore, seconds: float) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(store.path), str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(DATA)
    process.stdin.close()
    return process


async def test_two_processes_at_one_blob(store: ContentStore) -> None:
    first = child(store, 0.3)
    assert first.stdout is not None
    assert first.stdout.readline() == b"half\n"
    second = child(store, 0)
    assert second.stdout is not None
    with first.stdout, second.stdout:
        assert second.stdout.read() == b"present\n"
        assert first.stdout.read() == b"done\n"
    assert (first.wait(), second.wait()) == (0, 0)


async def test_kill_in_the_middle(store: ContentStore) -> None:
    killed = child(store, 60)
    assert killed.stdout is not None
    with killed.stdout:
        assert killed.stdout.readline() == b"half\n"
        assert not store.has(descriptor(DATA))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    async with store.ingest(descriptor(DATA)) as ingest:
        assert ingest.offset == 2 * MIB
        await ingest.write(DATA[2 * MIB :])
        await ingest.commit()
    assert store.read(Digest.of(DATA), len(DATA)) == DATA


@pytest.mark.root
async def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("tmpfs", str(disk), "tmpfs", 0, "size=2m")
    try:
        store = ContentStore(disk / "content")
        store.prepare()
        await take_in(store, b"small")
        with pytest.raises(Exhausted, match="full") as caught:
            await take_in(store, DATA)
        assert caught.value.hint is not None
        assert store.read(Digest.of(b"small"), 10) == b"small"
        assert not store.has(descriptor(DATA))
        with pytest.raises(Exhausted):
            store.write_index(lambda: [{"x": "y" * MIB}])
        assert json.loads((store.path / "index.json").read_text())["manifests"] == []
        mount(None, str(disk), None, 32, "size=8m")
        await take_in(store, DATA)
        assert store.read(Digest.of(DATA), len(DATA)) == DATA
        mount(None, str(disk), None, 32 | 1, "size=8m")
        with pytest.raises(Exhausted, match="read-only"):
            await take_in(store, b"more")
    finally:
        umount(str(disk), detach=True)


def test_read_checks(store: ContentStore) -> None:
    data = b"abc"
    with pytest.raises(NotFound):
        store.read(Digest.of(data), 10)
    store.put(Document(descriptor(data), data))
    assert store.read(Digest.of(data), 3) == data
    with pytest.raises(Corrupt, match="larger"):
        store.read(Digest.of(data), 2)
    store.blob(Digest.of(data)).write_bytes(b"abd")
    with pytest.raises(Corrupt, match="damaged"):
        store.read(Digest.of(data), 3)


def test_replace_file_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")

    def fails(*_: object) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(OSError, match="no space"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
