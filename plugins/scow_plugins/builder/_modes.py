"""`--chmod`: octal, or symbolic as chmod(1) has it. Pure."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from typing import Final

from scow.api import Invalid

_CLAUSE: Final = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION: Final = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_BITS: Final = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO: Final = {"u": 0o4700, "g": 0o2070, "o": 0o1007}


@dataclass(frozen=True, slots=True)
class Mode:
    """A change of permissions."""

    text: str
    #: An octal number; None for symbolic clauses.
    fixed: int | None
    clauses: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Mode:
        """Read it. Raises Invalid."""
        if re.fullmatch(r"[0-7]{1,5}", text):
            value = int(text, 8)
            if value > 0o7777:
                raise Invalid(f"invalid chmod parameter: {text!r} is more than 7777")
            return cls(text, value)
        clauses = []
        for clause in text.split(","):
            match = _CLAUSE.fullmatch(clause)
            if match is None:
                raise Invalid(f"invalid chmod parameter: {text!r}", hint="write an octal number (755) or u=rwX,go=rX")
            clauses.append((match[1] or "a", tuple(_ACTION.findall(match[2]))))
        return cls(text, None, tuple(clauses))

    def of(self, mode: int) -> int:
        """The permissions of a file that has `mode` (with its type)."""
        if self.fixed is not None:
            return self.fixed
        bits = stat.S_IMODE(mode)
        for who, actions in self.clauses:
            for operator, what in actions:
                bits = _changed(bits, who, operator, what, directory=stat.S_ISDIR(mode))
        return bits


def _changed(bits: int, who: str, operator: str, what: str, *, directory: bool) -> int:
    mask = 0
    for letter in "ugo" if "a" in who else who:
        mask |= _WHO[letter]
    value = 0
    for letter in what:
        if letter in _BITS:
            value |= _BITS[letter]
        elif letter == "X":
            value |= 0o111 if directory or bits & 0o111 else 0
        elif letter == "s":
            value |= 0o6000
        elif letter == "t":
            value |= 0o1000
        else:
            three = bits >> {"u": 6, "g": 3, "o": 0}[letter] & 7
            value |= three << 6 | three << 3 | three
    value &= mask
    if operator == "+":
        return bits | value
    if operator == "-":
        return bits & ~value
    # Assigning leaves the sticky and set-id bits of those who aren't meant.
    return bits & ~(mask & 0o777) & ~(mask & 0o7000) | value
