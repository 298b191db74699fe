"""Signals by name or number, as `kill` and `--stop-signal` take them."""

from __future__ import annotations

import re
import signal
from typing import Final

from scow.errors import Invalid

_DIGITS: Final = re.compile(r"[0-9]{1,3}")
_REAL_TIME: Final = re.compile(r"RTMIN\+(?P<up>[0-9]{1,3})|RTMAX-(?P<down>[0-9]{1,3})")

_HIGHEST: Final = 64


def signal_number(name: str | int) -> int:
    """`SIGTERM`, `TERM`, `term`, `15`, `RTMIN+3`, `RTMAX-1`. Raises Invalid."""
    bare = str(name).upper().removeprefix("SIG")
    number = _number(str(name), bare)
    if number is None or not 0 < number <= _HIGHEST:
        raise Invalid(f"there is no signal {name!r}")
    return number


def _number(text: str, bare: str) -> int | None:
    if (plain := _DIGITS.fullmatch(text)) is not None:
        return int(plain[0])
    if (real_time := _REAL_TIME.fullmatch(bare)) is not None:
        up, down = int(real_time["up"] or 0), int(real_time["down"] or 0)
        number = int(signal.SIGRTMAX) - down if real_time["down"] else int(signal.SIGRTMIN) + up
        return number if number >= signal.SIGRTMIN else None
    known = signal.Signals.__members__.get(f"SIG{bare}")
    return None if known is None else int(known)
