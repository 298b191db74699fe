"""The user's terminal: raw mode that is always given back, its size, and the keys that detach.

The terminal need not be our controlling one: a command may run in a process of another session, which can read and
set the terminal all the same, but gets no signals from it.
"""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

DETACH_KEYS: Final = "ctrl-p,ctrl-q"
_CONTROL: Final = {**{chr(97 + number): number + 1 for number in range(26)}, "@": 0} | {
    char: 27 + number for number, char in enumerate("[\\]^_")
}


@contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """The terminal passes every key on as it is, until the block ends in whatever way."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        try:
            # At once, not TCSAFLUSH: what was typed ahead is for the user's shell.
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
        except (termios.error, OSError):
            pass  # the terminal is gone


def terminal_size(descriptor: int) -> tuple[int, int]:
    """Rows and columns; zeros for what is no terminal."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return 0, 0
    return size.lines, size.columns


def parse_keys(text: str) -> bytes:
    """Docker's --detach-keys: `ctrl-p,ctrl-q`, `a,b`. Raises ValueError."""
    keys = bytearray()
    for key in (text or DETACH_KEYS).split(","):
        control = _CONTROL.get(key[5:].lower()) if key.startswith("ctrl-") else None
        if control is not None:
            keys.append(control)
        elif len(key) == 1 and key.isascii():
            keys += key.encode()
        else:
            raise ValueError(f"{key!r} is not a character, ctrl- and a letter, or ctrl- and one of @ [ \\ ] ^ _")
    return bytes(keys)


class DetachKeys:
    """Looks for the keys in what is typed. What may be their beginning is held back until it is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on of `data`, and whether the user wants to detach (the rest is then dropped)."""
        out = bytearray()
        for byte in data:
            while self._held and byte != self._keys[self._held]:
                # The longest beginning of the keys that still ends here; what comes before it was plain typing.
                keep = self._shorter()
                out += self._keys[: self._held - keep]
                self._held = keep
            if byte != self._keys[self._held]:
                out.append(byte)
                continue
            self._held += 1
            if self._held == len(self._keys):
                self._held = 0
                return bytes(out), True
        return bytes(out), False

    def _shorter(self) -> int:
        typed = self._keys[: self._held]
        return next(n for n in range(self._held - 1, -1, -1) if typed[self._held - n :] == self._keys[:n])
