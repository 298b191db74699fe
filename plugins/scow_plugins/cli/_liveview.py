"""What a terminal shows of steps that run: a head line, each step with its time, the end of its output. Pure.

Nothing is ever as wide as the terminal, so that a line is a row; and never more rows than there are.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

#: Lines of a running step's output.
TAIL: Final = 6


@dataclass(slots=True)
class Running:
    """A step that runs; `began` by the view's clock. `rest` is a line that isn't complete yet."""

    title: str
    began: float
    rest: bytes = b""
    tail: list[str] = field(default_factory=list)
    #: Layers that are on their way.
    layers: dict[str, str] = field(default_factory=dict)

    def said(self, lines: Sequence[str]) -> None:
        """Lines that have come."""
        self.tail = [*self.tail, *lines[-TAIL:]][-TAIL:]


def layout(head: str, running: Sequence[Running], now: float, rows: int, columns: int) -> list[str]:
    """The lines to draw. `rows`, `columns` 0: nobody knows. Steps count more than output, newer ones more than old."""
    columns = columns or 80
    room = rows - 2 if rows else 1 << 16  # the head, and the line where the cursor stands
    steps = running[-room:] if room > 0 else ()
    left = room - len(steps)
    lines: list[str] = []
    for number, step in enumerate(reversed(steps)):
        share = min(len(step.tail), left // (len(steps) - number))
        left -= share
        tail = [fitted(f" => => {line}", columns - 1) for line in step.tail[len(step.tail) - share :]]
        lines[:0] = [padded(f" => {step.title}", f"{now - step.began:.1f}s", columns), *tail]
    return [fitted(head, columns - 1), *lines]


def padded(text: str, end: str, columns: int) -> str:
    """A line with something at its right end."""
    room = max(columns - len(end) - 2, 0)
    text = fitted(text, room)
    return fitted(f"{text}{' ' * (room - width(text))} {end}", max(columns - 1, 1))


def fitted(text: str, columns: int) -> str:
    """As much of a text as has room."""
    if len(text) <= columns and text.isascii():
        return text
    used = 0
    for at, char in enumerate(text):
        used += width(char)
        if used > columns:
            return text[:at]
    return text


def width(text: str) -> int:
    """Columns that a text takes (Unicode Annex 11; combining characters take none)."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def rows_of(lines: Sequence[str], columns: int) -> int:
    """Rows that lines take which were drawn when the terminal was wider: it has wrapped them."""
    return sum(max(1, -(-width(line) // columns)) for line in lines) if columns else len(lines)
