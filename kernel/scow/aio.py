"""Structured concurrency helpers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import trio


@contextmanager
def cleanup(seconds: float, what: str) -> Iterator[None]:
    """Run undo steps to the end although we are cancelled, but never for longer than `seconds`.

    The only shield in scow beside the one around a kill: a clean-up that may hang is worse than one cut off,
    because the next command reclaims what was journalled.
    """
    with trio.move_on_after(seconds, shield=True) as scope:
        yield
    if scope.cancelled_caught:
        structlog.get_logger("scow").error("cleanup.timeout", what=what, seconds=seconds)
