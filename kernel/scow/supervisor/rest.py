"""A supervisor whose container has settled gives back the memory that only its start needed.

Fifty idle containers are fifty supervisors: what each keeps for itself counts fifty times, while what it never
touches is shared with the launcher that it was forked from.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

import trio

from scow.state.database import Database

#: A container that is still running after this many seconds is probably a long-lived one.
_SETTLED: Final = 1.0


async def rest_when_settled(database: Database) -> None:
    """Wait a while, then close what can be opened again and let the C library give free pages back (malloc_trim(3))."""
    await trio.sleep(_SETTLED)
    database.rest()
    gc.collect()
    # Not every C library has it (musl doesn't).
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
