"""What is fuzzed, and what counts as a find: anything but success and a ScowError with a decent message."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.mutate import Mutator

from scow.api import Internal, ScowError

_LONGEST_MESSAGE: Final = 2000
#: A message, and a Dockerfile's line with carets below it.
_LINES_MAX: Final = 4
#: What makes two messages of one kind different: numbers, and what is quoted.
_PARTICULARS: Final = re.compile(r"""["'].*["']|[0-9]+""")


@dataclass(frozen=True)
class Target:
    """One way by which strangers' bytes come in.

    `run` gets an input and an empty directory; it returns, or raises ScowError, or has found something. What it
    returns tells inputs apart: those that lead to something new are worth changing further.
    """

    name: str
    seeds: tuple[bytes, ...]
    spoil: Callable[[Mutator, bytes], bytes]
    run: Callable[[bytes, Path], object]
    words: tuple[bytes, ...] = ()


class Finding(Exception):
    """A property doesn't hold."""


def outcome(target: Target, data: bytes, directory: Path) -> str:
    """Run one input; gives what came of it, in short. Raises Finding, and whatever escapes from the code."""
    try:
        return f"ok {target.run(data, directory)}"
    except ScowError as error:
        check_error(error)
        return f"{error.kind.value} {_PARTICULARS.sub('#', error.message)[:80]}"


def check_error(error: ScowError) -> None:
    """A message says something, in a few lines, and doesn't call a stranger's bytes our bug. Raises Finding.

    Control characters are for the front-end to show: a message in Python may hold what it is about.
    """
    if isinstance(error, Internal):
        raise Finding(f"a stranger's bytes are called a bug: {error.message}") from error
    for text in (error.message, error.hint or "-"):
        if not text.strip() or len(text) > _LONGEST_MESSAGE or text.count("\n") > _LINES_MAX:
            raise Finding(f"no decent message: {text[:300]!a} of {len(text)} characters") from error
