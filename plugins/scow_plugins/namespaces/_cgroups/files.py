"""Reading and writing the small files of control groups."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["counters", "number", "read", "write"]


def write(directory: str, file: str, value: str) -> None:
    """One write(2), as these files want it. Raises OSError."""
    fd = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def read(directory: str, file: str) -> str:
    """The content, empty when there is none to be had."""
    try:
        return Path(directory, file).read_text()
    except OSError:
        return ""


def number(directory: str, file: str) -> int | None:
    """A file that holds one number; None when it doesn't."""
    with contextlib.suppress(ValueError):
        return int(read(directory, file))
    return None


def counters(text: str) -> dict[str, int]:
    """Lines of `name number`; other lines are left out."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found
