"""What a flag's text means: numbers, sizes, durations, switches. Pure functions that raise ValueError."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s?([kKmMgGtTpP]?)(?:i?[bB])?", re.ASCII)
_POWER: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_INT: Final = re.compile(r"[+-]?[0-9]+")


def switch(text: str) -> bool:
    """A boolean as Go's strconv.ParseBool reads it."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("write true or false")


def integer(text: str) -> int:
    """A decimal number with an optional sign."""
    if not _INT.fullmatch(text):
        raise ValueError("not a number")
    value = int(text) if len(text) <= 20 else 1 << 64
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError("the number is too large")
    return value


def size(text: str) -> int:
    """Bytes: `512`, `64k`, `1.5g`, `20MiB`; the units are powers of 1024 (go-units RAMInBytes)."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size: write a number and b, k, m or g")
    value = float(match[1]) * 1024 ** _POWER[match[2].lower()]
    if value >= 1 << 63:
        raise ValueError("the size is too large")
    return int(value)


def swap(text: str) -> int:
    """A size, or -1 for unlimited."""
    return -1 if text == "-1" else size(text)


def decimal(text: str) -> float:
    """A number of processors: not negative, not more exact than a thousand-millionth."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]{0,9})?|\.[0-9]{1,9}", text):
        raise ValueError("not a number such as 1.5")
    value = float(text)
    if value > 1 << 20:
        raise ValueError("the number is too large")
    return value


def duration(text: str) -> float:
    """Go's durations (`1h30m`, `500ms`) in seconds."""
    position, total = 0, 0.0
    while match := _DURATION.match(text, position):
        total += float(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not text or position != len(text):
        raise ValueError("not a duration such as 90s or 1h30m")
    return total


def seconds(text: str) -> int:
    """A number of seconds to wait."""
    value = integer(text)
    if value < 0:
        raise ValueError("it must not be negative")
    return value


#: Converters by a flag's kind.
VALUES: Final[dict[str, Callable[[str], Any]]] = {
    "bool": switch,
    "string": str,
    "list": str,
    "int": integer,
    "bytes": size,
    "swap": swap,
    "decimal": decimal,
    "seconds": seconds,
}
