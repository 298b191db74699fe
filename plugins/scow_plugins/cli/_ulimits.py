"""`--ulimit`, as Docker reads it (go-units, ulimit.go): `nofile=1024`, `nofile=1024:2048`, -1 for unlimited."""

from __future__ import annotations

from typing import Final

from scow.api import Ulimit
from scow_plugins.cli._flags import Args, UsageError
from scow_plugins.cli._values import integer

_NAMES: Final = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
    *("rttime", "sigpending", "stack"),
)


def ulimits(args: Args) -> tuple[Ulimit, ...]:
    """All of them; the last one of a name counts. Raises UsageError."""
    found = {}
    for text in args.all("ulimit"):
        try:
            limit = parse_ulimit(text)
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "--ulimit" flag: {error}') from None
        found[limit.name] = limit
    return tuple(found.values())


def parse_ulimit(text: str) -> Ulimit:
    """One limit. Raises ValueError, with Docker's words."""
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _NAMES:
        raise ValueError(f"invalid ulimit type: {name}")
    numbers = values.split(":")
    if len(numbers) > 2:
        raise ValueError(f"too many limit value arguments - {values}, can only have up to two, `soft[:hard]`")
    soft, hard = _number(numbers[0]), _number(numbers[-1])
    if min(soft, hard) < -1:
        raise ValueError("a limit is a number, or -1 for unlimited")
    if hard != -1 and soft == -1:
        raise ValueError(
            f"ulimit soft limit must be less than or equal to hard limit: soft: -1 (unlimited), hard: {hard}"
        )
    if soft > hard != -1:
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return Ulimit(name, soft, hard)


def _number(text: str) -> int:
    try:
        return integer(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
