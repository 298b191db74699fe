"""The builder as front-ends see it: check, plan, build."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from scow.api import Invalid, NotFound, Platform, ScowError
from scow.api.linux import read_beneath
from scow.engine.builders import BuildEvent, BuildRequest, BuildResult, Finding
from scow.engine.building import Base, Workbench
from scow_plugins.builder._caches import export_caches, inline
from scow_plugins.builder._fetching import Tally, fetching
from scow_plugins.builder._include import Fetch
from scow_plugins.builder._instructions import Arg, From, Instruction
from scow_plugins.builder._lint import lint, violation
from scow_plugins.builder._outputs import check_outputs, put_out
from scow_plugins.builder._plan import Options, Plan, make_plan, places_among
from scow_plugins.builder._reader import SIZE_MAX
from scow_plugins.builder._shell import places_of
from scow_plugins.builder._solve import Solved, Solver, rfc3339
from scow_plugins.builder._source import Place, located, wrong
from scow_plugins.builder._stages import BUILTIN, PROXIES, Dockerfile, platform_arguments, understand
from scow_plugins.builder._steps import CopyOp, RunOp


class DockerfileBuilder:
    """See `scow.engine.builders.Builder`."""

    def prepared(self, bench: Workbench, request: BuildRequest) -> AbstractAsyncContextManager[BuildRequest]:
        """The request with its contexts here, for the block's time; what the other methods take."""
        from scow_plugins.builder._contexts import prepared

        return prepared(bench, request)

    def check(self, bench: Workbench, request: BuildRequest) -> tuple[Finding, ...]:
        """The lints; images that are here are asked what they set. Raises Invalid."""
        dockerfile = _understood(request)
        findings = lint(dockerfile, _options(request), request.ignore or b"", bench.local_config)
        if dockerfile.file.check_error and findings:
            raise violation(findings, request.file_name)
        return findings

    async def plan(self, bench: Workbench, request: BuildRequest) -> dict[str, Any]:
        """The plan as data; images are fetched for it, for what they say."""
        plan, _, _ = await _planned(bench, request, lambda _: None, Tally())
        return plan.as_data()

    async def build(
        self, bench: Workbench, request: BuildRequest, listener: Callable[[BuildEvent], None]
    ) -> BuildResult:
        """Build. Raises Invalid, NotFound, Conflict, and what the engine raises."""
        check_outputs(bench, request)
        tally = Tally()
        plan, bases, dockerfile = await _planned(bench, request, listener, tally)
        others = other_platforms(dockerfile, bases)
        configs = {name: base.config for (name, _), base in bases.items()}
        warnings = lint(dockerfile, _options(request), request.ignore or b"", configs.get, others)
        if dockerfile.file.check_error and warnings:
            raise violation(warnings, request.file_name)
        if warnings:
            # Now, so that they are known also when a step fails.
            listener(BuildEvent("warned", 0, findings=warnings))
        _check(plan, request)
        breaks = places_of(dockerfile, plan, request.shells.breaks) if request.shells is not None else ()
        _tell_unused(dockerfile, request, listener)
        cache = bench.cache()
        try:
            solver = Solver(bench, request, plan, listener, cache, tally)
            solver.take_bases(bases)
            solver.breaks = breaks
            solved = await solver.run()
        finally:
            cache.close()
        config = _config(plan, request, solved, solver.epoch) | inline(solver, request, solved.stack)
        image, composed, pushed = await put_out(bench, request, solved.stack, config)
        await export_caches(solver, solved.stack)
        return BuildResult(
            image,
            composed.config.descriptor.digest,
            composed.manifest.descriptor.digest,
            solver.tally.cached,
            solver.tally.steps,
            warnings,
            pushed,
            composed.manifest.descriptor,
        )


def _understood(request: BuildRequest) -> Dockerfile:
    assert request.file is not None, "the request was not prepared"
    return understand(request.file, request.file_name, _fetcher(request), include=request.include)


def other_platforms(
    dockerfile: Dockerfile, bases: Mapping[tuple[str, Platform], Base]
) -> tuple[tuple[str, str, Place], ...]:
    """Bases that came for another platform than was asked for: a name that is one image only."""
    found = []
    for (name, platform), base in bases.items():
        if base.platform.rank(platform) is not None:
            continue
        stages = [each.start.at for each in dockerfile.stages if each.start.image == name]
        place = (stages[0] if stages else dockerfile.stages[0].start.at).place_of_rest
        message = (
            f'Base image {name} was pulled with platform "{base.platform}", expected "{platform}" for current build'
        )
        found.append(("InvalidBaseImagePlatform", message, place))
    return tuple(found)


def _fetcher(request: BuildRequest) -> Fetch | None:
    """Files of the context, for INCLUDE; links are followed within it only."""
    context = request.context
    if context is None:
        return None

    def fetch(path: str) -> bytes:
        root = os.open(context, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return read_beneath(root, path, SIZE_MAX + 1)
        finally:
            os.close(root)

    return fetch


def _options(request: BuildRequest) -> Options:
    return Options(
        request.platform,
        Platform.host(),
        request.target,
        request.build_args,
        request.contexts,
        request.network,
    )


async def _planned(
    bench: Workbench, request: BuildRequest, listener: Callable[[BuildEvent], None], tally: Tally
) -> tuple[Plan, dict[tuple[str, Platform], Base], Dockerfile]:
    dockerfile = _understood(request)
    bases: dict[tuple[str, Platform], Base] = {}
    places = places_among(request.contexts)

    def warn(text: str) -> None:
        listener(BuildEvent("note", 0, title=text))

    async def config(name: str, platform: Platform, said: Instruction) -> Mapping[str, Any]:
        # A stranger's file doesn't say what of this machine is looked at, nor do the triggers of a stranger's image.
        own = request.own_file and isinstance(said, From) and not name.startswith("host:")
        place = own or name in places
        try:
            with fetching(listener, tally, name) as report:
                bases[name, platform] = base = await bench.base(
                    name, platform, pull=request.pull, place=place, report=report, warn=warn
                )
        except ScowError as error:
            raise type(error)(located(said.at.place_of_rest, error.message), hint=error.hint) from None
        return base.config

    plan = await make_plan(dockerfile, _options(request), config)
    return plan, bases, dockerfile


def _check(plan: Plan, request: BuildRequest) -> None:
    """What is missing is said before anything runs."""
    for stage in plan.stages.values():
        for step in stage.steps:
            if isinstance(step.op, RunOp):
                _check_entitlements(step.said, step.op, request)
                _check_lent(step.said, step.op, request)
            local = isinstance(step.op, CopyOp) and step.op.sources and step.op.origin.kind == "context"
            if local and request.context is None:
                raise wrong(
                    step.said.at.place_of_rest,
                    "there is no build context to copy from",
                    hint="give a directory: scow build -f FILE DIRECTORY",
                )


def _check_entitlements(said: Instruction, op: RunOp, request: BuildRequest) -> None:
    """What a file wants beyond a container, its user has to grant: also what the triggers of a base want."""
    if op.network == "host" and request.network != "host" and "network.host" not in request.entitlements:
        raise Invalid(
            located(said.at.find("--network", 0), "network.host is not allowed"),
            hint="who trusts the file with the network of this machine says --allow network.host",
        )
    if op.security == "insecure" and "security.insecure" not in request.entitlements:
        raise Invalid(
            located(said.at.find("--security", 0), "security.insecure is not allowed"),
            hint="who trusts the file as root says --allow security.insecure",
        )


def _check_lent(said: Instruction, op: RunOp, request: BuildRequest) -> None:
    for mount in op.mounts:
        if mount.kind == "ssh" and mount.required and mount.id not in request.agents:
            raise NotFound(
                located(said.at.find("--mount", 0), f"SSH agent {mount.id}: not found"),
                hint=f"give it: scow build --ssh {mount.id}",
            )
        if mount.kind == "secret" and mount.required and mount.id not in request.secrets:
            raise NotFound(
                located(said.at.find("--mount", 0), f"secret {mount.id}: not found"),
                hint=f"give it: scow build --secret id={mount.id},src=FILE",
            )


def _tell_unused(dockerfile: Dockerfile, request: BuildRequest, listener: Callable[[BuildEvent], None]) -> None:
    known = set(PROXIES | BUILTIN) | set(platform_arguments(request.platform, request.platform))
    known |= {name for each in dockerfile.arguments for name, _ in each.values}
    for stage in dockerfile.stages:
        known |= {name for each in stage.body if isinstance(each, Arg) for name, _ in each.values}
    if unused := sorted(set(request.build_args) - known):
        listener(BuildEvent("note", 0, title=f"one or more build-args {unused} were not consumed"))


def _config(plan: Plan, request: BuildRequest, solved: Solved, epoch: int | None) -> dict[str, Any]:
    """The image's configuration, without its layers."""
    settings = dict(plan.stages[plan.target].config)
    if request.labels:
        settings["Labels"] = {**(settings.get("Labels") or {}), **request.labels}
    config: dict[str, Any] = {
        key: solved.raw[key] for key in ("architecture", "os", "variant", "os.version") if solved.raw.get(key)
    }
    config["created"] = rfc3339(epoch if epoch is not None else solved.created)
    if plan.author:
        config["author"] = plan.author
    config["config"] = settings
    config["history"] = solved.history
    return config
