"""Work that leaves nothing behind when it is told to end: SIGTERM and SIGHUP stop it as Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import Final

import trio

_SIGNALS: Final = (signal.SIGTERM, signal.SIGHUP)


async def stoppable(work: Callable[[], Awaitable[int]]) -> int:
    """The exit code of `work`; 128 + n when signal n came first, and what it had begun is undone."""
    came: list[int] = []
    code = 0
    # Who has it ignored (nohup) wants to go on.
    wanted = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*wanted) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for number in signals:
                    came.append(number)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            code = await work()
            nursery.cancel_scope.cancel()
    return 128 + came[0] if came else code
