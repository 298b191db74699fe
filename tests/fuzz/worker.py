"""The process that is fuzzed: it changes inputs, runs them, and says through a file which one it is at.

Its memory is bounded, so that a bomb ends as MemoryError here and not with the machine. Who watches it is in `watch`.
"""

from __future__ import annotations

import json
import random
import resource
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Finding, Target, outcome

#: Address space, which threads' stacks and zstd's windows are part of.
_ADDRESSES: Final = 2 << 30
#: What one input may add to what is used, in bytes.
_MEMORY: Final = 300 << 20
#: Inputs that led to something new are kept, so many for each target.
_KEPT: Final = 300


def run(targets: Sequence[Target], seed: str, limit: float | int, home: Path) -> None:
    """Fuzz until `limit` (seconds as a float, inputs for each target as an int). Ends at the first find."""
    bound()
    corpora = {target.name: list(target.seeds) for target in targets}
    known: dict[str, set[str]] = {target.name: set() for target in targets}
    counts = dict.fromkeys(known, 0)
    for number, target in _turns(targets, limit):
        corpus = corpora[target.name]
        data = _input(target, corpus, random.Random(f"{seed}/{target.name}/{number}"), number)
        said = one(target, data, home)
        counts[target.name] += 1
        if said not in known[target.name]:
            known[target.name].add(said)
            if len(corpus) < _KEPT + len(target.seeds):
                corpus.append(data)
    (home / "report.json").write_text(json.dumps({name: (counts[name], len(said)) for name, said in known.items()}))


def bound() -> None:
    """No more memory than any input may take, and no core files."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESSES, _ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _turns(targets: Sequence[Target], limit: float | int) -> Iterator[tuple[int, Target]]:
    """Each target in turn."""
    end = time.monotonic() + limit if isinstance(limit, float) else None
    number = 0
    while end is not None or number < limit:
        for target in targets:
            if end is not None and time.monotonic() > end:
                return
            yield number, target
        number += 1


def _input(target: Target, corpus: list[bytes], generator: random.Random, number: int) -> bytes:
    """The seeds as they are come first."""
    if number < len(target.seeds):
        return target.seeds[number]
    return target.spoil(Mutator(generator, target.words, corpus), generator.choice(corpus))


def one(target: Target, data: bytes, home: Path) -> str:
    """Run one input; a find goes to the file `found.json` and ends the process."""
    (home / "current").write_bytes(data)
    (home / "target").write_text(target.name)
    place = home / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    before = _reset_peak()
    try:
        said = outcome(target, data, place)
        if (grown := _peak() - before) > _MEMORY:
            raise Finding(f"{len(data)} bytes took {grown >> 20} MB of memory")
    except BaseException as error:
        _tell(home, error)
        raise SystemExit(3) from None
    return said


def _tell(home: Path, error: BaseException) -> None:
    lines = "".join(traceback.format_exception(error))
    report: dict[str, Any] = {"what": f"{type(error).__name__}: {error}"[:1000], "trace": lines[-6000:]}
    (home / "found.json").write_text(json.dumps(report))


def _reset_peak() -> int:
    """Forget how much was used at most (proc(5), clear_refs); gives what is used now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0
