"""kill -9 of each command that changes the store, at the moments when it changes it.

Afterwards `fsck` has nothing to say, every name is whole or absent, the same command succeeds, and there is in the end
what it makes when nobody kills it, and nothing beside. SCOW_KILLS=all kills at every moment, SCOW_KILLS=N at N of them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import images
from .conftest import Scow, engine_at

SWEEPER = Path(__file__).with_name("sweeper.py")
#: Moments for each command; the last ones of a command are always among them.
MOMENTS = os.environ.get("SCOW_KILLS", "5")


@dataclass
class Sweep:
    """A store that is put back to what it was, and a process that runs commands on it."""

    scow: Scow
    process: subprocess.Popen[str]
    home: Path
    registry: str

    def keep(self, name: str) -> None:
        """What the store is now, to be put back later. With devices and attributes."""
        subprocess.run(["cp", "-a", self.home / "root", self.home / name], check=True)

    def put_back(self, name: str) -> None:
        for gone in ("root", "run"):
            shutil.rmtree(self.home / gone, ignore_errors=True)
        subprocess.run(["cp", "-a", self.home / name, self.home / "root"], check=True)

    def run(self, argv: list[str], kill: int = 0) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        words = ["--config", str(self.scow.config), *argv]
        env = {name: value for name, value in self.scow.environment().items() if name.startswith(("SCOW", "HOME"))}
        self.process.stdin.write(json.dumps({"argv": words, "env": env, "kill": kill}) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))

    def must(self, argv: list[str]) -> dict[str, Any]:
        done = self.run(argv)
        assert done["code"] == 0, f"scow {' '.join(argv)}: {done['code']}\n{done['out']}"
        return done

    def names(self) -> set[str]:
        listed = self.must(["images", "-a", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])["out"]
        return set(listed.splitlines())

    def settled(self, name: str) -> tuple[int, int, list[str]]:
        """The weight once leftovers are gone. An image made twice has two IDs."""
        if name in TIMED:
            self.must(["image", "prune", "-f"])
        self.must(["gc", "-q", "--keep", "100g"])
        return self.weight()

    def weight(self) -> tuple[int, int, list[str]]:
        """How many blobs and layers there are, and what isn't finished."""
        root = self.home / "root"
        unfinished = [*root.glob("content/ingest/*"), *root.glob("storage/*/staging/*"), *root.rglob("*.tmp")]
        blobs = len(list(root.glob("content/blobs/*/*")))
        return blobs, len(list(root.glob("storage/*/layers/*"))), sorted(str(path) for path in unfinished)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, registry: str, busybox: str) -> Iterator[Sweep]:
    home = tmp_path_factory.mktemp("kills")
    for scow in engine_at(home, False, registry):
        scow("pull", "-q", busybox)
        scow("tag", busybox, "two:1")
        scow("tag", busybox, f"{registry}/kills/pushed:1")
        (home / "tree").mkdir()
        (home / "tree" / "file").write_text("imported\n")
        (home / "layer.tar").write_bytes(images.layer_of(home / "tree"))
        scow("import", str(home / "layer.tar"), "old:1")
        scow("import", "-m", "nobody's", str(home / "layer.tar"))
        images.push(
            images.write_layout(home / "layout", [images.layer_of(home / "tree")] * 2, {}), registry, "kills/pull:1"
        )
        scow(
            "run",
            "--name",
            "done",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "echo changed >/new; rm /www/index.html",
        )
        scow("save", "-o", str(home / "saved.tar"), "busybox", "old:1")
        command = [sys.executable, str(SWEEPER)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=scow.environment()) as process:
            try:
                made = Sweep(scow, process, home, registry)
                made.keep("full")
                made.must(["rmi", "-f", "busybox", "old:1", "two:1"])
                made.keep("bare")
                yield made
            finally:
                process.kill()
        made.put_back("full")


def moments(total: int, name: str) -> list[int]:
    """When to kill: at all of them, or at some, and at the last three."""
    if MOMENTS == "all":
        return list(range(1, total + 1))
    last = {total, total - 1, total - 2}
    chosen = random.Random(name).sample(range(1, total), min(total - 1, max(0, int(MOMENTS) - len(last))))
    return sorted(last | set(chosen))


COMMANDS = {
    "tag": ["tag", "busybox", "three:1"],
    "tag over": ["tag", "old:1", "two:1"],
    "rmi": ["rmi", "-f", "old:1", "two:1"],
    "load": ["load", "-q", "-i", "SAVED"],
    "save": ["save", "-o", "OUT", "busybox", "old:1"],
    "save oci": ["save", "--format", "oci-archive", "-o", "OUT", "busybox"],
    "commit": ["commit", "-m", "x", "done", "made:1"],
    "import": ["import", "LAYER", "new:1"],
    "prune": ["image", "prune", "-a", "-f"],
    "system prune": ["system", "prune", "-a", "-f"],
    "gc": ["gc", "-q", "--keep", "0"],
    "pull": ["pull", "-q", "REGISTRY/kills/pull:1"],
    "push": ["push", "-q", "REGISTRY/kills/pushed:1"],
    "push to a directory": ["push", "-q", "busybox", "oci:OUT:x"],
    "rm": ["rm", "done"],
}
#: What they make has the time of its making in it.
TIMED = ("commit", "import")
#: What can be pulled again of what a command writes elsewhere.
WRITTEN = {
    "save": "docker-archive:OUT:busybox:latest",
    "save oci": "oci-archive:OUT",
    "push to a directory": "oci:OUT:x",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed(sweep: Sweep, name: str) -> None:
    places = {"SAVED": "saved.tar", "LAYER": "layer.tar", "OUT": "out"}
    argv = COMMANDS[name]
    for word, path in places.items():
        argv = [part.replace(word, str(sweep.home / path)) for part in argv]
    argv = [part.replace("REGISTRY", sweep.registry) for part in argv]
    base = "bare" if name == "load" else "full"
    sweep.put_back(base)
    remove(sweep.home / "out")
    before = sweep.names()
    total = sweep.must(argv)["ticks"]
    after = sweep.names()
    expected = sweep.settled(name)
    assert expected[2] == []
    for moment in moments(total, name):
        sweep.put_back(base)
        remove(sweep.home / "out")
        died = sweep.run(argv, kill=moment)
        assert died["code"] in (-9, 0), died
        now = sweep.names()
        where = f"{name}, killed at {moment} of {total}"
        assert before & after <= now <= before | after or name in TIMED, where
        checked = sweep.run(["fsck"])
        assert checked["code"] == 0, f"{where}\n{checked['out']}"
        again = sweep.run(argv)
        assert again["code"] == 0 or (name == "rm" and "no such container" in again["out"]), f"{where}\n{again['out']}"
        weight = sweep.settled(name)
        assert tags(sweep.names()) == tags(after), where
        assert weight == expected, where
        assert not list(sweep.home.glob("out/**/*.tmp")), where
        assert not list(sweep.home.glob(".out.*.tmp")), where
        if (made := WRITTEN.get(name)) is not None:
            sweep.must(["pull", "-q", made.replace("OUT", str(sweep.home / "out"))])


def tags(names: set[str]) -> set[str]:
    """Without IDs, and without images that have no name."""
    return {each.split()[0] for each in names} - {"<none>:<none>"}


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
