"""Times cold pulls of large images, in alternation with docker, podman, skopeo with umoci, and bare pipes (root).

A pull goes from a registry on loopback into a store without the image, on this machine's disk. Beside it: memory while
pulling, the image's removal, the first run after a pull, and the list of a thousand images. As `run.py`, everything
happens in namespaces and a directory of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import engines as e
import large
from report import Results
from run import INSIDE, outside, say

HERE = Path(__file__).parent
#: Title, entries, bytes unpacked, compression. On a Debian machine they come to about 100, 350 and 740 MB.
IMAGES = {
    "100": ("100 MB", 7_500, 300_000_000, "gzip"),
    "350": ("350 MB", 30_000, 1_050_000_000, "gzip"),
    "740": ("740 MB", 77_000, 2_200_000_000, "gzip"),
    "740zstd": ("740 MB as zstd", 77_000, 2_200_000_000, "zstd"),
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each image is pulled by each")
    parser.add_argument("--images", default=",".join(IMAGES), help=f"which images: {', '.join(IMAGES)}")
    parser.add_argument("--engines", default="docker,podman,umoci,tar,hash", help="which others take part")
    parser.add_argument("--many", type=int, default=1000, help="how many images are listed; 0: not at all")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "pull")
    return parser.parse_args()


@dataclass
class Contender:
    """Something that brings an image onto the disk. `pull` gives milliseconds; `clean` takes it away again."""

    name: str
    pull: Callable[[large.Large], float]
    clean: Callable[[large.Large], None]
    version: str = ""
    #: Milliseconds of the removal, where that is a command of its own.
    remove: Callable[[large.Large], float] | None = None
    #: Milliseconds of a container's whole life.
    run: Callable[[large.Large], float] | None = None
    #: Bytes of all its processes at this moment.
    memory: Callable[[], int] | None = None


@dataclass
class ScowStore:
    """scow with one storage plugin, in a root directory of its own for each pull."""

    engine: e.Scow
    storage: str
    home: Path
    _pulls: int = field(default=0)

    @property
    def root(self) -> Path:
        return self.home / f"root-{self.storage}-{self._pulls}"

    def flags(self, *arguments: str) -> tuple[str, ...]:
        return ("--root", str(self.root), *arguments)

    def pull(self, image: large.Large) -> float:
        self._pulls += 1
        return self.engine.timed(*self.flags("pull", "-q", "--storage", self.storage, image.reference))

    def remove(self, image: large.Large) -> float:
        return self.engine.timed(*self.flags("rmi", image.reference))

    def run(self, image: large.Large) -> float:
        command = ("run", "--rm", "--network", "none", "--storage", self.storage, image.reference, "true")
        return self.engine.timed(*self.flags(*command))

    def clean(self, image: large.Large) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    def contender(self) -> Contender:
        name = "scow" if self.storage == "erofs" else f"scow {self.storage}"
        return Contender(name, self.pull, self.clean, self.engine.version(), self.remove, self.run, self.engine.pss)


def of_engine(engine: e.Engine) -> Contender:
    """docker or podman."""

    def remove(image: large.Large) -> float:
        return engine.timed("rmi", "-f", image.reference)

    def clean(image: large.Large) -> None:
        with suppress(RuntimeError):
            engine.run("rmi", "-f", image.reference)

    return Contender(
        engine.name,
        lambda image: engine.timed("pull", *engine.pull_flags, image.reference),
        clean,
        engine.version(),
        remove,
        lambda image: engine.timed("run", "--rm", "--network", "none", image.reference, "true"),
        engine.pss,
    )


def of_shell(name: str, script: Callable[[large.Large, Path], str], place: Path) -> Contender:
    """What a shell does in an empty directory."""

    def pull(image: large.Large) -> float:
        place.mkdir()
        began = time.perf_counter()
        subprocess.run(
            ["bash", "-o", "pipefail", "-ec", script(image, place)],
            check=True,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        return (time.perf_counter() - began) * 1000

    return Contender(name, pull, lambda _: shutil.rmtree(place, ignore_errors=True))


def umoci(image: large.Large, place: Path) -> str:
    return (
        f"skopeo copy -q --insecure-policy --src-tls-verify=false docker://{image.reference} oci:{place}/layout:x\n"
        f"umoci unpack --image {place}/layout:x {place}/bundle"
    )


def tar(image: large.Large, place: Path) -> str:
    inflate = "zstd -dcq" if image.kind == "zstd" else "pigz -dc"
    return "\n".join(f"curl -sS --fail '{url}' | {inflate} | tar -x -C {place}" for url in urls(image))


def hashes(image: large.Large, place: Path) -> str:
    """What no engine can do without: the bytes come in, are hashed, inflated, and hashed again. Nothing is written."""
    inflate = "zstd -dcq" if image.kind == "zstd" else "pigz -dc"
    return "\n".join(
        f"curl -sS --fail '{url}' | tee >(sha256sum > {place}/sum) | {inflate} | sha256sum" for url in urls(image)
    )


def urls(image: large.Large) -> list[str]:
    host, _, name = image.reference.removesuffix(":latest").partition("/")
    return [f"http://{host}/v2/{name}/blobs/{layer.digest}" for layer in image.layers]


def main() -> int:
    asked = options()
    if os.geteuid() != 0:
        sys.stderr.write("the benchmark needs root\n")
        return 1
    if os.environ.get(INSIDE) is None:
        return outside(asked)
    home = Path(os.environ[INSIDE])
    with e.registry(home) as registry:
        found = list(e.found(home, asked.engines.split(",")))
        with e.daemons(home, found):
            taking_part = contenders(found, asked.engines.split(","), home)
            results = Results({each.name: each.version for each in taking_part})
            for key in asked.images.split(","):
                measure(asked, home, taking_part, registry, IMAGES[key], results)
                results.write(asked.output)  # a long run that is stopped has its first images at least
            if asked.many:
                say(f"{asked.many} images")
                lists(found, home, asked.many, results)
    results.write(asked.output)
    text = results.table() + "\n" + goals(results)
    (asked.output / "results.md").write_text(text)
    sys.stdout.write("\n" + text)
    return 0


def contenders(found: list[e.Engine], wanted: list[str], home: Path) -> list[Contender]:
    scow = next(engine for engine in found if isinstance(engine, e.Scow))
    scow.run("version")  # the launcher is there from now on
    made = [ScowStore(scow, storage, home).contender() for storage in ("erofs", "overlay")]
    made += [of_engine(engine) for engine in found if engine is not scow]
    if "umoci" in wanted and shutil.which("umoci") and shutil.which("skopeo"):
        made.append(of_shell("skopeo, umoci", umoci, home / "umoci"))
    if "tar" in wanted:
        made.append(of_shell("curl, tar", tar, home / "tar"))
    if "hash" in wanted:
        made.append(of_shell("curl, hash", hashes, home / "hash"))
    return made


def measure(
    asked: argparse.Namespace,
    home: Path,
    taking_part: list[Contender],
    registry: str,
    wanted: tuple[str, int, int, str],
    results: Results,
) -> None:
    title, entries, size, kind = wanted
    say(f"making the image of {title}")
    image = large.push(registry, home, title, entries, size, kind)
    shape = f"{title} ({image.packed / 1e6:.0f} MB, {image.unpacked / 1e6:.0f} unpacked, {image.entries} entries)"
    able = list(taking_part)
    for number in range(asked.rounds):
        for each in tuple(able):
            os.sync()
            try:
                with Watch(each.memory) as watch:
                    took = each.pull(image)
            except (RuntimeError, subprocess.CalledProcessError) as error:
                # Docker 20.10 and umoci know no zstd.
                say(f"{title}: {each.name} takes no part: {str(error).splitlines()[-1]}")
                able.remove(each)
                each.clean(image)
                continue
            say(f"{title}: {each.name}, {number + 1} of {asked.rounds}: {took:.0f} ms")
            results.add(f"pull {shape}, ms", each.name, took)
            if watch.peak:
                results.add(f"memory during that, PSS, MB at most, {title}", each.name, watch.peak / 1e6)
            if each.run is not None:
                results.add(f"first run after the pull, {title}, ms", each.name, each.run(image))
                later = [each.run(image) for _ in range(3)]
                results.add(f"later run, {title}, ms", each.name, statistics.median(later))
            if each.remove is not None:
                os.sync()  # what the pull still has to write isn't the removal's
                results.add(f"rmi, {title}, ms", each.name, each.remove(image))
            each.clean(image)


class Watch:
    """Looks at a sum of memory several times a second while its block runs."""

    def __init__(self, memory: Callable[[], int] | None) -> None:
        self._memory = memory
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.peak = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        # Seldom enough not to cost the pull anything worth mentioning.
        while self._memory is not None and not self._over.wait(0.2):
            self.peak = max(self.peak, self._memory())


def lists(found: list[e.Engine], home: Path, count: int, results: Results) -> None:
    """`images` with many of them, warm."""
    archive = home / "many.tar"
    large.many(archive, count)
    for engine in found:
        say(f"{count} images: {engine.name}")
        engine.run("load", "-q", "-i", str(archive))
        engine.run("images")
    for _ in range(10):
        for engine in found:
            results.add(f"images, {count} of them, ms", engine.name, engine.timed("images"))


def goals(results: Results) -> str:
    """The figures that scow is held to, beside those that it has here."""
    rows = [["goal", "at most", "here", ""], ["---"] * 4]

    def row(what: str, most: float, value: float | None) -> None:
        if value is not None:
            rows.append([what, f"{most:g}", f"{value:.2f}", "reached" if value <= most else "missed"])

    for name, samples in results.samples.items():
        middle = {engine: statistics.median(values) for engine, values in samples.items()}
        scow, overlay = middle.get("scow"), middle.get("scow overlay")
        others = [middle[other] for other in ("docker", "podman") if other in middle]
        if name.startswith("pull ") and scow is not None:
            what = name.partition(" (")[0]
            row(f"{what}: scow / the faster of docker and podman", 0.25, scow / min(others) if others else None)
            row(f"{what}: scow / hashing alone", 1.5, scow / middle["curl, hash"] if "curl, hash" in middle else None)
            bare = middle.get("curl, tar")
            row(f"{what}: scow with overlay / tar", 1.2, overlay / bare if overlay is not None and bare else None)
        if name.startswith("memory"):
            for engine in ("scow", "scow overlay"):
                row(f"{name}: {engine}", 150, max(samples[engine]) if engine in samples else None)
        if name.startswith("rmi"):
            row(name, 50, scow)
        if name.startswith("images"):
            row(name, 100, scow)
        if name.startswith("first run"):
            later = results.samples[name.replace("first run after the pull", "later run")]["scow"]
            row(f"{name}: first / later", 1.1, scow / statistics.median(later) if scow is not None else None)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
