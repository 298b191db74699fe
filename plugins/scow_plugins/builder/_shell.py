"""A shell for the user in the middle of a build: in the files of a step that failed, or before a step.

What a shell changes goes with it: it becomes no layer, because a layer is known by what the file says, and nobody who
takes it from the cache could tell that somebody's hand was in it. Only what lasts beyond steps anyway (cache mounts,
whatever is reached over the network) keeps what was done to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from scow.api import Conflict, Invalid, ScowError
from scow.engine.building import RunningStep, Stack, Step
from scow_plugins.builder._plan import Plan
from scow_plugins.builder._source import Place, Statement, located, wrong
from scow_plugins.builder._stages import Dockerfile
from scow_plugins.builder._steps import PlannedStep

if TYPE_CHECKING:
    from scow_plugins.builder._solve import Solver

#: Runs a program somewhere.
Opener = Callable[[Step], AbstractAsyncContextManager[RunningStep]]


def places_of(dockerfile: Dockerfile, plan: Plan, lines: Sequence[int]) -> tuple[Statement, ...]:
    """The instructions that lines belong to. Raises Invalid for a line before which there can be no shell."""
    return tuple(_place_of(dockerfile, plan, line) for line in lines)


def _place_of(dockerfile: Dockerfile, plan: Plan, line: int) -> Statement:
    file = dockerfile.file
    found = next((each for each in file.statements if each.source is file.source and line in each.lines), None)
    if found is None:
        at = Place(file.source, line)
        raise Invalid(located(at, f"there is no instruction on line {line}"), hint="--break takes the line of a step")
    stage = next((each for each in dockerfile.stages if any(found is said.at for said in each.body)), None)
    if stage is None:
        raise wrong(
            found.place(0, len(found.keyword)),
            f"{found.name} is no step: before line {line} there are no files",
            hint="--break takes the line of an instruction behind FROM",
        )
    if stage.index not in plan.stages:
        name = plan.stages[plan.target].name
        raise wrong(
            found.place(0, len(found.keyword)), f"the stage of line {line} is not built: {name} needs none of it"
        )
    return found


async def shell_after(solver: Solver, step: PlannedStep, failed: Step, opened: Opener, failure: str) -> None:
    """If the user wants it, a shell where a step has failed; returns when it has ended."""
    shells = solver.request.shells
    if shells is None or not shells.on_error:
        return
    async with solver.shell_lock:
        # The build fails, whatever the others come to.
        solver.stop_others(step)
        text = f"{failure}\n[a shell in the failed step's files; the build fails when it ends]"
        try:
            await _converse(
                solver, replace(failed, process=replace(failed.process, args=step.shell.args)), opened, text
            )
        except ScowError as error:
            solver.note(f"there is no shell in the failed step's files: {error.message}")


async def shell_before(solver: Solver, step: PlannedStep, below: Stack) -> None:
    """A shell before a step, with all that the step itself would have. Raises Conflict when the user gives up."""
    from scow_plugins.builder._run import prepare

    place = step.said.at.place(0, len(step.said.at.keyword))
    async with solver.shell_lock, AsyncExitStack() as stack:
        text = located(place, f"a shell before {step.said.at.name}; exit 0 goes on, any other code gives the build up")
        try:
            prepared = await prepare(solver, step.shell, stack)
            code = await _converse(solver, prepared, partial(solver.bench.step, below), text)
        except ScowError as error:
            raise Conflict(
                located(place, f"there is no shell before this step: {error.message}"), hint=error.hint
            ) from None
    if code != 0:
        raise Conflict(located(place, f"given up before this step: the shell's exit code: {code}"))


async def _converse(solver: Solver, step: Step, opened: Opener, text: str) -> int:
    shells = solver.request.shells
    assert shells is not None
    async with opened(replace(step, process=replace(step.process, tty=shells.tty), stdin=True)) as running:
        return await shells.converse(running.session, text)
