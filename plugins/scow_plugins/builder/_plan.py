"""The plan: which stages are built, from what, in which order. Data, printable, made before anything runs.

Stages that nobody needs are not looked at; those that need each other in a circle are refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import trio

from scow.api import Platform, ScowError
from scow_plugins.builder._instructions import Instruction
from scow_plugins.builder._parse import parse_trigger
from scow_plugins.builder._source import wrong
from scow_plugins.builder._stages import (
    Dockerfile,
    Globals,
    Stage,
    Start,
    check_index,
    context_name,
    global_scope,
    platform_arguments,
    references,
    starts,
    wanted_stage,
)
from scow_plugins.builder._state import StageState
from scow_plugins.builder._steps import CopyOp, MountOp, Origin, PlannedStage, PlannedStep, RunOp

#: Gives an image's configuration: name, platform, what wants it.
BaseConfig = Callable[[str, Platform, Instruction], Awaitable[Mapping[str, Any]]]
_IMAGE: Final = "docker-image://"
_LAYOUT: Final = "oci-layout://"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says about a plan."""

    platform: Platform
    build_platform: Platform
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    #: Named contexts by `context_name`: `docker-image://name`, `oci-layout://DIR[:TAG][@DIGEST]`, or a directory.
    contexts: Mapping[str, str] = field(default_factory=dict)
    network: str = "default"


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages by number, each after those that it needs."""

    stages: Mapping[int, PlannedStage]
    target: int
    author: str = ""
    #: Every --build-arg that something has asked for.
    used_args: frozenset[str] = frozenset()

    def as_data(self) -> dict[str, Any]:
        """For `--print plan`."""
        return {
            "target": self.stages[self.target].name,
            "stages": [
                {
                    "name": stage.name,
                    "from": {"stage": self.stages[stage.base].name} if stage.base >= 0 else {"image": stage.image},
                    "platform": str(stage.platform),
                    "needs": sorted(self.stages[index].name for index in stage.needs),
                    "steps": [_step_data(step) for step in stage.steps],
                }
                for stage in self.stages.values()
            ],
        }


def _step_data(step: PlannedStep) -> dict[str, Any]:
    at = step.said.at
    data: dict[str, Any] = {"file": at.source.name, "line": at.line, "instruction": step.title}
    if isinstance(step.op, RunOp):
        data["run"] = {"args": step.op.args, "cwd": step.op.cwd, "user": step.op.user, "network": step.op.network}
        if step.op.mounts:
            data["run"]["mounts"] = [_mount_data(mount) for mount in step.op.mounts]
    elif isinstance(step.op, CopyOp):
        data["copy"] = {
            "from": str(step.op.origin),
            "sources": [
                *step.op.sources,
                *step.op.urls,
                *step.op.repositories,
                *(f"<<{file.name}" for file in step.op.files),
            ],
            "target": step.op.target,
        }
    return data


def _mount_data(mount: MountOp) -> dict[str, Any]:
    data: dict[str, Any] = {"type": mount.kind, "target": mount.target}
    if mount.kind == "bind":
        data |= {"from": str(mount.origin), "source": mount.source}
    if mount.id:
        data["id"] = mount.id
    return data


async def make_plan(dockerfile: Dockerfile, options: Options, base: BaseConfig) -> Plan:
    """The plan. Raises Invalid, Unsupported, and what `base` raises."""
    return await _Planner(dockerfile, options, base).run()


class _Planner:
    def __init__(self, dockerfile: Dockerfile, options: Options, base: BaseConfig) -> None:
        self._dockerfile = dockerfile
        self._options = options
        self._base = base
        self._scope = scope_of(dockerfile, options)
        self._starts = starts(dockerfile, self._scope, options.contexts)
        self._states: dict[int, StageState] = {}
        self._planned: dict[int, PlannedStage] = {}
        self._configs: dict[tuple[str, Platform], Mapping[str, Any]] = {}

    async def run(self) -> Plan:
        target = wanted_stage(self._dockerfile, self._options.target)
        await self._fetch_bases(target)
        ahead, seen = [target.index], set()
        while ahead:
            index = ahead.pop()
            if index in seen:
                continue
            seen.add(index)
            if index not in self._planned:
                await self._plan(self._dockerfile.stages[index])
            ahead += self._planned[index].needs
        order: list[int] = []
        self._sort(target.index, [], order)
        stages = {index: self._planned[index] for index in order}
        for planned in stages.values():
            self._check_order(planned)
        return Plan(stages, target.index, self._states[target.index].author)

    async def _fetch_bases(self, target: Stage) -> None:
        """The images that the written stages begin with, all at once; triggers may want more later."""
        ahead, seen = [target.index], set()
        wanted: dict[tuple[str, Platform], Instruction] = {}
        while ahead:
            index = ahead.pop()
            if index in seen:
                continue
            seen.add(index)
            stage, start = self._dockerfile.stages[index], self._starts[index]
            if start.kind == "stage":
                ahead.append(start.stage)
            elif (image := self._image(start, stage)) is not None:
                wanted.setdefault((image, start.platform or self._options.platform), stage.start)
            for name, said in () if start.whole else references(stage.body):
                origin = self._origin(name, said)
                if origin.kind == "stage":
                    ahead.append(origin.stage)
        try:
            async with trio.open_nursery() as nursery:
                for (image, platform), said in wanted.items():
                    nursery.start_soon(self._config, image, platform, said)
        except BaseExceptionGroup as group:
            raise first_error(group) from None

    def _image(self, start: Start, stage: Stage) -> str | None:
        """The image that a stage begins with; None for other beginnings."""
        if start.kind == "image":
            return start.image
        if start.kind != "context":
            return None
        return image_of(self._options.contexts[start.image])

    async def _config(self, image: str, platform: Platform, said: Instruction) -> Mapping[str, Any]:
        key = (image, platform)
        if key not in self._configs:
            self._configs[key] = await self._base(image, platform, said)
        return self._configs[key]

    async def _plan(self, stage: Stage) -> None:
        """Read a stage, after the one that it begins with."""
        start = self._starts[stage.index]
        platform = start.platform or self._options.platform
        state = StageState(self._scope, self._dockerfile.file.escape, self._origin, self._options.network)
        image = self._image(start, stage)
        if start.kind == "stage":
            if start.stage not in self._planned:
                await self._plan(self._dockerfile.stages[start.stage])
            below = self._states[start.stage]
            platform = self._planned[start.stage].platform if start.platform is None else platform
            state.begin(below.config, inherited=below)
        elif image is not None:
            config = await self._config(image, platform, stage.start)
            state.begin(config.get("config") or {})
            state.author = str(config.get("author") or "")
        else:
            state.begin({"WorkingDir": "/"})
        self._states[stage.index] = state
        body = [] if start.whole else [*self._triggers(state, stage), *stage.body]
        steps = tuple(state.read(each) for each in body)
        needs = {origin.stage for step in steps for origin in origins(step) if origin.kind == "stage"}
        if start.kind == "stage":
            needs.add(start.stage)
        self._planned[stage.index] = PlannedStage(
            stage.index,
            stage.name if stage.start.name else f"stage-{stage.index}",
            start.stage,
            image or ("scratch" if start.kind == "scratch" else ""),
            platform,
            steps,
            frozenset(needs),
            state.config,
            start.image if start.kind == "context" and image is None else "",
        )

    def _check_order(self, planned: PlannedStage) -> None:
        """Files come from stages that stand before. Raises Invalid."""
        for step in planned.steps:
            for origin in origins(step):
                if origin.kind == "stage" and origin.stage >= planned.index:
                    kind = "mount" if isinstance(step.op, RunOp) else "copy"
                    name = repr(origin.name)
                    raise wrong(
                        step.said.at.find(origin.name, 0),
                        f"cannot {kind} from stage {name}: it needs to be defined before stage {planned.name!r}",
                        hint=f"move stage {name} up",
                    )

    def _triggers(self, state: StageState, stage: Stage) -> Sequence[Instruction]:
        found = []
        for text in state.triggers():
            try:
                found.append(parse_trigger(text, self._dockerfile.file.escape))
            except ScowError as error:
                raise wrong(
                    stage.start.at.place_of_rest, f"an ONBUILD trigger of the base is wrong: {error.message}"
                ) from None
        return found

    def _origin(self, name: str, said: Instruction) -> Origin:
        """What a name after `from=` means: a named context, a stage, an image."""
        if (context := context_name(name)) in self._options.contexts:
            image = image_of(self._options.contexts[context])
            return Origin("named", context) if image is None else Origin("image", image)
        check_index(self._dockerfile, name, said)
        stage = self._dockerfile.find(name)
        if stage is not None:
            return Origin("stage", stage.name, stage.index)
        return Origin("scratch") if name == "scratch" else Origin("image", name)

    def _sort(self, index: int, path: list[int], order: list[int]) -> None:
        """Depth first: what is needed comes before. Raises Invalid for a circle."""
        if index in order:
            return
        stage = self._dockerfile.stages[index]
        if index in path:
            circle = " → ".join(self._dockerfile.stages[each].name for each in [*path[path.index(index) :], index])
            raise wrong(stage.start.at.place_of_rest, f"circular dependency detected on stage {stage.name}: {circle}")
        for need in sorted(self._planned[index].needs):
            self._sort(need, [*path, index], order)
        order.append(index)


def image_of(place: str) -> str | None:
    """The image that a named context is, in the engine's words; None for a directory."""
    if place.startswith(_IMAGE):
        return place.removeprefix(_IMAGE)
    if not place.startswith(_LAYOUT):
        return None
    path, at, digest = place.removeprefix(_LAYOUT).partition("@")
    path, colon, tag = path.partition(":")
    # As with any image's name, a digest says all.
    return f"oci:{path}" + (f":@{digest}" if at else f":{tag}" if colon else "")


def places_among(contexts: Mapping[str, str]) -> frozenset[str]:
    """Images that lie at places of this machine: those, and no others, that may be looked for there."""
    return frozenset(image_of(place) or "" for place in contexts.values() if place.startswith(_LAYOUT))


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first ScowError of a nursery's group, else the group itself."""
    found: BaseException = group.subgroup(ScowError) or group
    while isinstance(found, BaseExceptionGroup) and found is not group:
        found = found.exceptions[0]
    return found


def origins(step: PlannedStep) -> list[Origin]:
    """Where a step's files come from."""
    if isinstance(step.op, CopyOp):
        return [step.op.origin]
    if isinstance(step.op, RunOp):
        return [mount.origin for mount in step.op.mounts]
    return []


def scope_of(dockerfile: Dockerfile, options: Options) -> Globals:
    """The global scope."""
    automatic = platform_arguments(options.platform, options.build_platform, options.target)
    return global_scope(dockerfile, options.build_args, automatic)
