"""Commands that take several containers: all are tried, results come in the order of the names, one failure is 1."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from scow.api import ScowError
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._report import report

#: So that `stop $(scow ps -q)` is no stampede.
_AT_ONCE = 50


async def each(
    cli: Cli,
    names: tuple[str, ...],
    action: Callable[[str], Awaitable[str]],
    *,
    forgiven: tuple[type[ScowError], ...] = (),
) -> int:
    """Do it to each; what `action` gives is printed. `forgiven` errors are told, but are no failure.

    Gives the exit code.
    """
    limit = trio.CapacityLimiter(_AT_ONCE)
    failed: list[str] = []
    done = [trio.Event() for _ in names]

    async def one(number: int, name: str) -> None:
        error: ScowError | None = None
        line = ""
        async with limit:
            try:
                line = await action(name)
            except ScowError as caught:
                error = caught
        if number:
            await done[number - 1].wait()
        if error is not None:
            if not isinstance(error, forgiven):
                failed.append(name)
            report(cli, error, runs=False)
        else:
            cli.out(line)
        done[number].set()

    async with trio.open_nursery() as nursery:
        for number, name in enumerate(names):
            nursery.start_soon(one, number, name)
    return 1 if failed else 0
