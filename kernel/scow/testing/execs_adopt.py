"""A container that goes on under another supervisor: `adopt`, and then the end by `reclaim`.

For runtimes that have `adopt`; of others the checks say nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from scow.errors import Conflict
from scow.model.process import AdoptRequest, ContainerProcess, ExitStatus, ProcessSpec
from scow.testing.execs import Bench

__all__ = ["CHECKS"]


@asynccontextmanager
async def _adopted(
    bench: Bench, process: ProcessSpec, *, paused: bool = False, **changes: Any
) -> AsyncIterator[tuple[ContainerProcess, ContainerProcess]]:
    """(the container as it was started, the same as another plugin instance has adopted it)."""
    async with bench.running(process, **changes) as first:
        request = bench.request(-1, process, None, **changes)
        adopted = bench.maker.make().adopt(  # type: ignore[attr-defined]
            AdoptRequest(
                bench.maker.driver,
                bench.container,
                request.isolation,
                first.pid,
                os.pidfd_open(first.pid),
                None if first.console is None else os.dup(first.console),
                paused,
                first.wait,
            )
        )
        yield first, adopted


async def check_adopted_goes_on(bench: Bench) -> None:
    """Commands get in, counters are there, signals arrive, and the end is the one that the parent saw."""
    async with _adopted(bench, ProcessSpec(("sleep", "60"))) as (first, adopted):
        assert adopted.pid == first.pid
        assert (await bench.inside(adopted, "hostname")).out == "vessel\n"
        inside = await bench.inside(adopted, "grep", "-E", "CapEff|Seccomp:", "/proc/self/status")
        outside = await bench.inside(first, "grep", "-E", "CapEff|Seccomp:", "/proc/self/status")
        assert inside.out == outside.out
        assert adopted.stats()["pids"] >= 1
        adopted.pause()
        adopted.resume()
        adopted.signal(signal.SIGKILL)
        assert await adopted.wait() == ExitStatus(signal=9)
        assert await adopted.wait() == ExitStatus(signal=9)
        try:
            async with adopted.exec(ProcessSpec(("true",)), bench.stdio(0)):
                raise AssertionError("got into a container that has ended")
        except Conflict:
            pass
    assert bench.leftovers() == []


async def check_adopted_while_paused(bench: Bench) -> None:
    """It knows that nothing can get in now."""
    async with _adopted(bench, ProcessSpec(("sleep", "60")), paused=True) as (first, adopted):
        first.pause()
        try:
            async with adopted.exec(ProcessSpec(("true",)), bench.stdio(0)):
                raise AssertionError("got into a paused container")
        except Conflict:
            pass
        adopted.resume()
        assert (await bench.inside(adopted, "true")).status.code == 0
    assert bench.leftovers() == []


async def check_adopted_terminal(bench: Bench) -> None:
    """Its size can be set."""
    async with _adopted(bench, ProcessSpec(("sleep", "60"), tty=True)) as (first, adopted):
        assert adopted.console is not None
        adopted.resize(33, 77)
        assert first.console is not None
        assert os.get_terminal_size(first.console) == (77, 33)
    assert bench.leftovers() == []


async def check_reclaim_ends_what_was_adopted(bench: Bench) -> None:
    """What is left of the container when its first process has ended goes by the journal's handle."""
    script = "(trap '' TERM; sleep 60) & exec sleep 60"
    async with _adopted(bench, ProcessSpec(("sh", "-c", script))) as (_, adopted):
        await trio.sleep(0.05)
        adopted.signal(signal.SIGKILL)
        await adopted.wait()
        for handle in list(bench.journal.held.values()):
            bench.maker.make().reclaim(handle)  # type: ignore[attr-defined]
        assert [left for left in bench.leftovers() if not left.startswith("journal")] == []
    assert bench.leftovers() == []


CHECKS = tuple(check for name, check in sorted(globals().items()) if name.startswith("check_"))
