"""When a request is made once more, and how long to wait before. Pure.

Few and bounded: a pull that can't succeed must say so soon. Retry-After is honoured up to a bound, then reported.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds. A round asks every endpoint that may still help; between rounds there is a pause."""

    rounds: int = 4
    first_pause: float = 0.25
    longest_pause: float = 8.0
    #: A server's own Retry-After is waited for up to this.
    patience: float = 20.0
    connect: float = 10.0
    #: How long a server may say nothing.
    idle: float = 60.0
    #: A connection that brings fewer bytes a second than `slow` for `slow_after` seconds may be joined by others.
    slow: float = 16.0 * (1 << 20)
    slow_after: float = 1.0

    def pause(self, done: int, retry_after: float | None) -> float | None:
        """How long to wait after `done` rounds (1 is the first); None: don't ask again."""
        if done >= self.rounds:
            return None
        if retry_after is not None:
            return retry_after if retry_after <= self.patience else None
        # Full jitter on the upper half: many pulls that failed together don't come back together.
        pause = min(self.first_pause * 2 ** (done - 1), self.longest_pause)
        return float(pause * random.uniform(0.5, 1.0))


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Retry-After in seconds (RFC 9110, section 10.2.3: seconds or a date); None when it can't be read."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now is None else now))
