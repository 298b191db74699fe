"""Watches the process that is fuzzed: whoever hangs or dies in it is a find as well. Finds are kept as files."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.fuzz import worker
from tests.fuzz.target import Target

#: How long one input may take, in seconds, on a busy machine.
_PATIENCE: Final = 20.0
#: More finds of one run would be more of the same.
_FINDS_MAX: Final = 20
_FOUND: Final = 3


@dataclass(frozen=True)
class Find:
    """An input, what it does, and where it is kept: the file's name begins with the target's."""

    target: str
    what: str
    trace: str
    path: Path


def fuzz(
    targets: Sequence[Target], seed: str, limit: float | int, keep: Path, patience: float = _PATIENCE
) -> tuple[list[Find], dict[str, tuple[int, int]]]:
    """Finds, and for each target how many inputs it had, and how many different things came of them.

    `limit` is seconds for a float, then goes on behind a find; inputs for each target for an int, then ends there.
    """
    finds: list[Find] = []
    end = time.monotonic() + limit
    while True:
        left = end - time.monotonic() if isinstance(limit, float) else limit
        with _home() as home:
            found = _watched(partial(worker.run, targets, f"{seed}+{len(finds)}", left, home), home, keep, patience)
            if found is None:
                return finds, json.loads((home / "report.json").read_text())
        if all(each.trace[-300:] != found.trace[-300:] for each in finds):
            finds.append(found)
        if isinstance(limit, int) or len(finds) == _FINDS_MAX or time.monotonic() > end:
            return finds, {}


def replay(targets: Sequence[Target], path: Path, keep: Path, patience: float = _PATIENCE) -> Find | None:
    """Run a kept input again. Raises ValueError when no target has the file's name."""
    target = next((each for each in targets if path.name.startswith(f"{each.name}-")), None)
    if target is None:
        raise ValueError(f"{path.name} begins with no target's name")
    data = path.read_bytes()
    with _home() as home:
        return _watched(partial(_once, target, data, home), home, keep, patience)


def _once(target: Target, data: bytes, home: Path) -> None:
    worker.bound()
    worker.one(target, data, home)


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="scow-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _watched(work: Callable[[], None], home: Path, keep: Path, patience: float) -> Find | None:
    """Do it in a process of its own, until it ends or is at one input for too long."""
    process = multiprocessing.get_context("fork").Process(target=work)
    with warnings.catch_warnings():
        # Python 3.12 and newer warn where there are other threads; the child has nothing to do with what they hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    try:
        while process.is_alive():
            process.join(0.2)
            if process.is_alive() and _idle(home) > patience:
                return _keep(home, keep, f"hangs: no end after {patience} s", "")
    finally:
        process.kill()
        process.join()
    if process.exitcode == 0:
        return None
    if process.exitcode == _FOUND:
        said = json.loads((home / "found.json").read_text())
        return _keep(home, keep, said["what"], said["trace"])
    return _keep(home, keep, f"the process ended with {process.exitcode}", "")


def _idle(home: Path) -> float:
    """For how long it has been at the same input."""
    try:
        return time.time() - (home / "current").stat().st_mtime
    except FileNotFoundError:
        return 0


def _keep(home: Path, keep: Path, what: str, trace: str) -> Find:
    target = (home / "target").read_text()
    data = (home / "current").read_bytes()
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{target}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return Find(target, what, trace or what, path)
