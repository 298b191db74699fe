"""python -m tests.fuzz [--seconds N | --count N] [--seed S] [--only TARGET…] [--keep DIRECTORY] [--replay FILE…]."""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from tests.fuzz.all import TARGETS
from tests.fuzz.watch import Find, fuzz, replay


def main() -> int:
    """1 when something was found, or is still there."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(prog="nox -s fuzz --", description="Fuzz everything that strangers send.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--count", type=int, help="instead: so many inputs for each target; the same each time")
    parser.add_argument("--seed", default="", help="where the random generator begins (at random)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="some targets")
    parser.add_argument("--keep", type=Path, default=Path(".fuzz"), help="where failing inputs go (.fuzz)")
    parser.add_argument("--replay", type=Path, nargs="+", help="instead: run kept inputs again")
    arguments = parser.parse_args()
    if arguments.replay:
        again = [replay(TARGETS, path, arguments.keep) for path in arguments.replay]
        return _told([find for find in again if find])
    seed = arguments.seed or secrets.token_hex(4)
    print(f"--seed {seed}", flush=True)
    chosen = [target for target in TARGETS if target.name in arguments.only]
    finds, seen = fuzz(chosen, seed, arguments.count or arguments.seconds, arguments.keep)
    for name, (inputs, outcomes) in seen.items():
        print(f"{name}: {inputs} inputs, {outcomes} different outcomes")
    return _told(finds)


def _told(finds: list[Find]) -> int:
    for find in finds:
        print(f"\n{find.trace}\n{find.target}: {find.what}\nagain: nox -s fuzz -- --replay {find.path}")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
