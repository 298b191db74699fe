"""Times what storage plugins do with one layer, without a registry and without commands (root).

A layer of the machine's own files is unpacked, mounted, left and removed by each driver in turn, beside what a shell
does with the same bytes: unpack them with tar, or inflate and hash them and write nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import large
import trio
from report import Results

from scow.content.stored import StoredBlob
from scow.layers.codecs import plain
from scow.layers.erofs.image import Image, Piece
from scow.layers.erofs.layer import LayerWriter
from scow.layers.limits import Limits
from scow.layers.tar import TarReader
from scow.model.descriptor import Descriptor
from scow.model.digest import Digest
from scow.model.storage import Snapshot, UnpackRequest
from scow.testing.layers import archive, file
from scow.testing.storage import Storage

HERE = Path(__file__).parent
DRIVERS = ("erofs", "overlay")
TALL = 200


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each driver unpacks the layer")
    parser.add_argument("--entries", type=int, default=7_500, help="how many entries the layer has")
    parser.add_argument("--megabytes", type=int, default=250, help="its size, unpacked")
    parser.add_argument("--drivers", default=",".join(DRIVERS), help="which storage plugins take part")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "layers")
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Layer:
    """A compressed archive in a file."""

    path: Path
    diff_id: Digest
    digest: Digest
    entries: int
    unpacked: int

    def request(self, driver: str, below: tuple[Snapshot, ...] = ()) -> UnpackRequest:
        descriptor = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", self.digest, self.path.stat().st_size)
        return UnpackRequest(driver, descriptor, self.diff_id, self.diff_id, below, StoredBlob(descriptor, self.path))


def make_layer(home: Path, entries: int, size: int) -> Layer:
    """As `large` makes them, but with every directory on the way, as archives of images have them."""
    chosen = [path for path, _ in large.choose(entries, size)]
    directories = {str(parent) for path in chosen for parent in Path(path).parents} - {"."}
    named = sorted({*chosen, *directories})
    listed, plain, packed = home / "list", home / "layer.tar", home / "layer.tar.gz"
    listed.write_bytes(b"\0".join(map(os.fsencode, named)))
    where = ["-C", "/", "--no-recursion", "--null", "-T", str(listed)]
    subprocess.run(["tar", "-c", "--format=pax", "-f", str(plain), *where], check=True)
    with packed.open("wb") as out:
        subprocess.run(["pigz", "-6", "-c", str(plain)], check=True, stdout=out)
    made = Layer(
        packed, Digest.of(plain.read_bytes()), Digest.of(packed.read_bytes()), len(named), plain.stat().st_size
    )
    plain.unlink()
    return made


def main() -> int:
    asked = options()
    if os.geteuid() != 0:
        sys.stderr.write("the benchmark needs root\n")
        return 1
    home = Path(tempfile.mkdtemp(prefix="scow-bench-", dir="/var/tmp"))
    try:
        layer = make_layer(home, asked.entries, asked.megabytes * 1_000_000)
        shape = (
            f"{layer.path.stat().st_size / 1e6:.0f} MB, {layer.unpacked / 1e6:.0f} unpacked, {layer.entries} entries"
        )
        drivers = [driver for driver in DRIVERS if driver in asked.drivers.split(",")]
        results = Results(dict.fromkeys((*drivers, "pigz, tar", "pigz, hashes", "mkfs.erofs"), ""), base="erofs")
        for _ in range(asked.rounds):
            for driver in drivers:
                trio.run(one_layer, driver, home, layer, shape, results)
            shells(home, layer, shape, results)
        alone(layer, results)
        sizes(home, layer, drivers, results)
        for driver in drivers:
            trio.run(many_layers, driver, home, results)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    results.write(asked.output)
    sys.stdout.write("\n" + results.table())
    return 0


@contextmanager
def storage(driver: str, home: Path) -> Iterator[Storage]:
    base = home / driver
    shutil.rmtree(base, ignore_errors=True)
    os.sync()
    try:
        yield Storage(f"scow_plugins.{driver}:Plugin", driver, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


async def one_layer(driver: str, home: Path, layer: Layer, shape: str, results: Results) -> None:
    with storage(driver, home) as store:
        cpu = time.process_time()
        results.add(f"unpack ({shape}), ms", driver, await timed(lambda: store.run(layer.request(driver))))
        results.add("processor time of that, ms", driver, (time.process_time() - cpu) * 1000)
        (snapshot,) = (store.plugin.find(chain_id) for chain_id in store.plugin.snapshots())
        await mounts(store, (snapshot,), "1 layer", results)
        os.sync()  # what the layer still has to write isn't the removal's
        began = time.perf_counter()
        store.plugin.remove(snapshot.chain_id)
        results.add("remove, ms", driver, (time.perf_counter() - began) * 1000)


async def many_layers(driver: str, home: Path, results: Results) -> None:
    with storage(driver, home) as store:
        layers = await store.unpack(*(archive(file(f"file{number}", b"x")) for number in range(TALL)))
        for _ in range(3):
            await mounts(store, layers, f"{TALL} layers", results)


async def mounts(store: Storage, layers: tuple[Snapshot, ...], what: str, results: Results) -> None:
    for number in range(5):
        began = time.perf_counter()
        async with store.mounted(layers, f"scratch{number}"):
            results.add(f"mount, {what}, new scratch, ms", store.driver, (time.perf_counter() - began) * 1000)
            began = time.perf_counter()
        results.add(f"leave, {what}, ms", store.driver, (time.perf_counter() - began) * 1000)
        store.plugin.erase(store.base / "scratch" / f"scratch{number}")


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


def shells(home: Path, layer: Layer, shape: str, results: Results) -> None:
    """The same bytes without scow: written and not hashed, hashed and not written."""
    place = home / "tar"
    scripts = {
        "pigz, tar": f"pigz -dc {layer.path} | tar -x -C {place}",
        "pigz, hashes": f"tee >(sha256sum > {place}/sum) < {layer.path} | pigz -dc | sha256sum",
    }
    for name, script in scripts.items():
        place.mkdir()
        os.sync()
        began = time.perf_counter()
        subprocess.run(["bash", "-o", "pipefail", "-c", script], check=True, stdout=subprocess.DEVNULL)
        results.add(f"unpack ({shape}), ms", name, (time.perf_counter() - began) * 1000)
        shutil.rmtree(place)


class Nowhere:
    """Where an image goes that nobody wants."""

    def write(self, offset: int, pieces: Sequence[Piece]) -> None:
        """Write nothing."""

    def read(self, offset: int, size: int) -> bytes:
        """What was never written."""
        return bytes(size)


def alone(layer: Layer, results: Results) -> None:
    """The reader of archives and the writer of images by themselves: nothing is inflated, hashed or written."""
    with layer.path.open("rb") as file:
        chunks = list(plain(file))
    for _ in range(3):
        left = iter(chunks)
        began = time.perf_counter()
        reader = TarReader(lambda left=left: next(left, b""))
        writer = LayerWriter(Image(Nowhere()), None, Limits())
        for entry in reader:
            writer.add(entry, reader.data)
        writer.finish(bytes(16))
        took = time.perf_counter() - began
        results.add("reader and writer alone, microseconds an entry", "erofs", took / layer.entries * 1e6)


def sizes(home: Path, layer: Layer, drivers: list[str], results: Results) -> None:
    """What the layer takes on disk; mkfs.erofs, which sees all files before it begins, stands beside it."""
    for driver in drivers:
        with storage(driver, home) as store:
            snapshot = trio.run(store.run, layer.request(driver))
            results.add("size on disk, MB", driver, store.plugin.usage(snapshot.chain_id) / 1e6)
            if driver == "overlay" and shutil.which("mkfs.erofs"):
                image = home / "mkfs"
                subprocess.run(["mkfs.erofs", "-T0", str(image), str(snapshot.path)], check=True, capture_output=True)
                results.add("size on disk, MB", "mkfs.erofs", image.stat().st_size / 1e6)


if __name__ == "__main__":
    sys.exit(main())
