"""Names and numbers of system calls, one data module per architecture."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Final

#: Added to every number of an x32 program.
X32_BIT: Final = 0x40000000


@cache
def numbers(architecture: str) -> dict[str, int]:
    """Name → number for x86_64, i386, x32 (without the x32 bit) or aarch64."""
    text: str = import_module(f"{__name__}.{architecture}").NUMBERS
    pairs = (entry.partition("=") for entry in text.split())
    return {name: int(number) for name, _, number in pairs}
