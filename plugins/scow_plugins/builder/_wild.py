"""Patterns with many wildcards, matched in time linear in the path: strangers write ignore files, too.

A regular expression tries `*a*a*a*a*b` in more ways than there is time for. Here all the places in the pattern at
which a path may have arrived are the bits of one number, and each letter moves them all (Thompson's simulation).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

#: One letter; `[^/]*`; `(?:.*/)?`; `.*`.
Kind: TypeAlias = Literal["one", "star", "directories", "rest"]
#: A part of a pattern, and which letters it takes (asked for `one` only).
Part: TypeAlias = tuple[Kind, Callable[[str], object]]


class Wild:
    """A whole pattern. `directories` takes two places: before it, and within."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._places: list[Part | None] = []
        for part in parts:
            self._places += [part, None] if part[0] == "directories" else [part]
        self._end = 1 << len(self._places)
        #: Places that may be left without a letter: for the next one, or for the one after next.
        self._near = self._bits("star", "rest")
        self._far = self._bits("directories")
        self._moves: dict[str, tuple[int, int, int]] = {}

    def matches(self, path: str) -> bool:
        """Whether the whole of `path` is meant."""
        places = self._skipped(1)
        for letter in path:
            stays, steps, leaps = self._moves.get(letter) or self._learn(letter)
            places = self._skipped(places & stays | (places & steps) << 1 | (places & leaps) << 2)
            if not places:
                return False
        return bool(places & self._end)

    def _bits(self, *kinds: Kind) -> int:
        return sum(1 << at for at, part in enumerate(self._places) if part is not None and part[0] in kinds)

    def _skipped(self, places: int) -> int:
        while (more := places | (places & self._near) << 1 | (places & self._far) << 2) != places:
            places = more
        return places

    def _learn(self, letter: str) -> tuple[int, int, int]:
        """For a letter: the places that stay, those that go one on, those that go two on."""
        takes = sum(
            1 << at for at, part in enumerate(self._places) if part is not None and part[0] == "one" and part[1](letter)
        )
        inside = self._far << 1
        stays = self._bits("rest") | inside | (self._bits("star") if letter != "/" else 0)
        steps = takes | self._far | (inside if letter == "/" else 0)
        leaps = self._far if letter == "/" else 0
        self._moves[letter] = stays, steps, leaps
        return stays, steps, leaps
