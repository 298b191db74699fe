"""Times `scow build` in alternation with docker's classic builder, BuildKit, buildah and podman (root).

Two cases: twenty small steps (ten RUN, ten COPY), and a context of 10,000 files and 200 MB with one COPY. Of each:
cold, all cached and nothing changed, one changed file. Everything happens in namespaces and a directory of its own, as
in `run.py`. Samples that were taken while others worked on the machine are counted, and the table says so.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import engines as e
import image
from report import Results
from run import INSIDE, outside, say

HERE = Path(__file__).parent
CASES = ("steps", "large")
#: A sample is noisy when so many processes of others could run on each processor just before it.
NOISY = 0.5


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is built by each")
    parser.add_argument("--cases", default=",".join(CASES), help=f"which cases: {', '.join(CASES)}")
    parser.add_argument("--engines", default="docker,podman,buildah", help="which others take part, where installed")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "builds")
    return parser.parse_args()


@dataclass
class Builder:
    """Something that builds. `build` gives milliseconds; `forget` makes the next build a cold one."""

    name: str
    version: str
    build: Callable[[Path, str, bool], float]
    forget: Callable[[], None]


def builders(found: list[e.Engine], wanted: list[str], home: Path) -> list[Builder]:
    """scow first, then all that are installed and wanted."""
    made = []
    for engine in found:
        if engine.name == "scow":
            made.append(_prunes("scow", engine, {}))
        if engine.name == "docker":
            made.append(_prunes("classic", engine, {"DOCKER_BUILDKIT": "0"}))
            made.append(_prunes("BuildKit", engine, {"DOCKER_BUILDKIT": "1"}))
        if engine.name == "podman":
            made.append(_layers("podman", engine, ("build",)))
    if "buildah" in wanted and shutil.which("buildah"):
        storage = ("--root", str(home / "buildah" / "root"), "--runroot", str(home / "buildah" / "run"))
        made.append(_layers("buildah", e.Engine("buildah", ("buildah", *storage)), ("bud",)))
    return made


def _prunes(name: str, engine: e.Engine, environment: dict[str, str]) -> Builder:
    """Those with a cache of their own."""

    def build(context: Path, tag: str, cold: bool) -> float:
        return engine.timed("build", "-q", "-t", tag, str(context), **environment)

    def forget() -> None:
        for words in (("rmi", "-f", "steps"), ("rmi", "-f", "large"), ("builder", "prune", "-af")):
            with suppress(RuntimeError):
                engine.run(*words)
        engine.run("image", "prune", "-f")

    return Builder(name, engine.version(), build, forget)


def _layers(name: str, engine: e.Engine, words: tuple[str, ...]) -> Builder:
    """Those whose images are their cache; their containers need nothing of the machine (`chroot`)."""
    flags = ("--isolation", "chroot", "--layers", "--tls-verify=false", "-q")

    def build(context: Path, tag: str, cold: bool) -> float:
        return engine.timed(*words, *flags, *(("--no-cache",) if cold else ()), "-t", tag, str(context))

    def forget() -> None:
        for tag in CASES:
            with suppress(RuntimeError):
                engine.run("rmi", "-f", tag)

    return Builder(name, engine.version(), build, forget)


def steps(context: Path, base: str) -> Path:
    """Twenty steps; gives the file that changes: it comes in with the last COPY but three."""
    lines = [f"FROM {base}"]
    for number in range(10):
        (context / f"file{number}").write_text(f"{number}\n")
        lines += [f"RUN echo {number} > /made{number}", f"COPY file{number} /file{number}"]
    (context / "Dockerfile").write_text("\n".join([*lines, 'CMD ["/bin/true"]']) + "\n")
    return context / "file8"


def large(context: Path, base: str) -> Path:
    """Ten thousand files and 200 MB, one COPY; gives the file that changes."""
    dice = random.Random(1)
    for number in range(10_000):
        place = context / "files" / f"{number % 100:02}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}").write_bytes(dice.randbytes(20_000))
    (context / "Dockerfile").write_text(f"FROM {base}\nCOPY files /files\n")
    return context / "files" / "00" / "0"


def main() -> int:
    asked = options()
    if os.geteuid() != 0:
        sys.stderr.write("the benchmark needs root\n")
        return 1
    if os.environ.get(INSIDE) is None:
        return outside(asked)
    home = Path(os.environ[INSIDE])
    wanted = asked.engines.split(",")
    with e.registry(home) as registry:
        found = list(e.found(home, wanted))
        with e.daemons(home, found):
            taking_part = builders(found, wanted, home)
            results = Results({each.name: each.version for each in taking_part})
            base = image.push(registry, "small", image.small())
            noise: list[str] = []
            for case in asked.cases.split(","):
                measure(asked.rounds, case, home, base, taking_part, results, noise)
    results.write(asked.output)
    text = results.table() + "\n" + goals(results) + "\n" + noted(noise, results)
    (asked.output / "results.md").write_text(text)
    sys.stdout.write("\n" + text)
    return 0


def measure(
    rounds: int, case: str, home: Path, base: str, taking_part: list[Builder], results: Results, noise: list[str]
) -> None:
    context = home / case
    context.mkdir()
    changing = {"steps": steps, "large": large}[case](context, base)
    title = {"steps": "twenty steps", "large": "10,000 files, 200 MB"}[case]
    for each in taking_part:
        each.build(context, case, False)  # the base image is there from now on, and bridges, launchers, daemons
    for number in range(rounds):
        for each in taking_part:
            say(f"{title}: {each.name}, {number + 1} of {rounds}")
            each.forget()
            _quiet(each.name, noise)
            results.add(f"{title}, cold, ms", each.name, each.build(context, case, True))
            for _ in range(3):
                _quiet(each.name, noise)
                results.add(f"{title}, unchanged, ms", each.name, each.build(context, case, False))
            changing.write_bytes(os.urandom(20_000))
            _quiet(each.name, noise)
            results.add(f"{title}, one changed file, ms", each.name, each.build(context, case, False))
    shutil.rmtree(context)


def _quiet(name: str, noise: list[str]) -> None:
    """Write down what earlier samples have left to the disk, and see who else works here."""
    os.sync()
    busy = int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1
    if busy > NOISY * (os.cpu_count() or 1):
        noise.append(name)


def noted(noise: list[str], results: Results) -> str:
    """How many samples are noisy."""
    total = sum(len(values) for samples in results.samples.values() for values in samples.values())
    if not noise:
        return "No other process wanted a processor when a sample was begun.\n"
    return f"**Noisy**: when {len(noise)} of {total} samples were begun, other processes wanted a processor.\n"


def goals(results: Results) -> str:
    """The figures that scow is held to, beside those that it has here."""
    rows = [["goal", "at most", "here", ""], ["---"] * 4]
    wanted = {
        "twenty steps, cold, ms": {"classic": 1 / 5, "BuildKit": 1 / 3},
        "twenty steps, unchanged, ms": {"classic": 1, "BuildKit": 1 / 3},
        "10,000 files, 200 MB, cold, ms": {"BuildKit": 1 / 3},
        "10,000 files, 200 MB, unchanged, ms": {"BuildKit": 1 / 2},
    }
    for name, most in wanted.items():
        samples = results.samples.get(name, {})
        middle = {engine: statistics.median(values) for engine, values in samples.items()}
        for other, limit in most.items():
            if "scow" in middle and other in middle:
                value = middle["scow"] / middle[other]
                what = f"{name.removesuffix(', ms')}: scow / {other}"
                rows.append([what, f"{limit:.2f}", f"{value:.2f}", "reached" if value <= limit else "missed"])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
