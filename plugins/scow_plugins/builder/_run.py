"""RUN: a program on top of the layers below, with its mounts; what it writes becomes a layer."""

from __future__ import annotations

import hashlib
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from scow.api import BindMount, Conflict, Mount, NoCommand, NotExecutable, NotFound, ProcessSpec, Resources, TmpfsMount
from scow.engine.builders import BuildEvent
from scow.engine.building import Layer, Stack, Step, StepFile, StepFolder, StepView
from scow_plugins.builder import _cachemounts
from scow_plugins.builder._agent import lent
from scow_plugins.builder._cache import Key
from scow_plugins.builder._shell import shell_after
from scow_plugins.builder._source import located
from scow_plugins.builder._steps import MountOp, PlannedStep, RunOp

if TYPE_CHECKING:
    from scow_plugins.builder._solve import Solver

#: Lines of a failed step's output that its error shows.
_TAIL: Final = 10
_TAIL_BYTES: Final = 4096
_NETWORKS: Final = {"default": "", "host": "host", "none": "none"}


async def run_key(solver: Solver, op: RunOp, below: Stack) -> Key:
    """What a RUN's outcome depends on: neither secrets nor proxies nor what caches hold."""
    from scow_plugins.builder._solve import chain_of

    return Key(
        "run",
        parent=chain_of(below),
        args=op.args,
        env=op.env,
        cwd=op.cwd,
        user=op.user,
        mounts=[await _mount_key(solver, mount) for mount in op.mounts],
        network=op.network,
        security=op.security,
        files=[[path, hashlib.sha256(content).hexdigest()] for path, content in op.files],
        hosts=solver.request.extra_hosts,
        hostname=_hostname(solver),
        epoch=solver.epoch,
        # Programs can read them, and keep what they have read.
        **({"ulimits": sorted(str(each) for each in solver.request.ulimits)} if solver.request.ulimits else {}),
    )


async def _mount_key(solver: Solver, mount: MountOp) -> dict[str, Any]:
    key: dict[str, Any] = {"kind": mount.kind, "target": mount.target, "ro": mount.read_only}
    if mount.kind == "bind":
        key |= {"source": mount.source, "tree": await solver.tree_key(mount.origin, mount.source)}
    elif mount.kind == "cache":
        key |= {"id": mount.id}
        if mount.origin.kind != "scratch" or mount.source:
            key |= {"source": mount.source, "tree": await solver.tree_key(mount.origin)}
    elif mount.kind == "tmpfs":
        key |= {"size": mount.size}
    else:
        key |= {"id": mount.id, "env": mount.env}
    return key


async def run_step(solver: Solver, step: PlannedStep, op: RunOp, below: Stack, identity: int) -> Layer:
    """Run it. Raises Conflict when the program fails, with the end of its output."""
    async with AsyncExitStack() as stack:
        # First what may have to be waited for: who waits must not keep others from running.
        prepared = await prepare(solver, op, stack)
        await stack.enter_async_context(solver.limiter)
        solver.note_once(solver.bench.warnings(prepared))
        try:
            running = await stack.enter_async_context(solver.bench.step(below, prepared))
        except (NoCommand, NotExecutable) as error:
            await shell_after(solver, step, prepared, partial(solver.bench.step, below), error.message)
            raise
        tail = b""
        async for output in running.output():
            tail = (tail + output.data)[-_TAIL_BYTES:]
            solver.tell(BuildEvent("output", identity, data=output.data, stream=output.stream))
        status = await running.wait()
        if status.exit_code != 0:
            failure = _failure(step, op, status.exit_code, tail, oom=status.oom_killed)
            await shell_after(solver, step, prepared, running.after, failure)
            raise Conflict(failure)
        return await running.layer(solver.epoch)


def _failure(step: PlannedStep, op: RunOp, code: int, tail: bytes, *, oom: bool) -> str:
    place = step.said.at.place(0, len(step.said.at.keyword))
    why = " (out of memory)" if oom else ""
    message = located(place, f"process {' '.join(op.args)!r} did not complete successfully: exit code: {code}{why}")
    lines = tail.decode(errors="replace").splitlines()[-_TAIL:]
    return message + ("\n" + "\n".join(f"      > {line}" for line in lines) if lines else "")


async def prepare(solver: Solver, op: RunOp, stack: AsyncExitStack) -> Step:
    """The step with its mounts, which stay until the stack is closed. May wait for a cache that is locked."""
    mounts: list[Mount] = []
    views: list[StepView] = []
    folders: list[StepFolder] = []
    sockets: list[str] = []
    files = [StepFile(path, content, 0o755) for path, content in op.files]
    env = [*op.env, *op.proxies]
    for mount in op.mounts:
        if mount.kind == "bind":
            tree = await solver.stack_of(mount.origin, mount.source)
            views.append(StepView(tree, mount.source, mount.target, mount.read_only))
        elif mount.kind == "cache":
            place = await stack.enter_async_context(_cachemounts.held(solver, mount))
            # A path within it is looked for by who mounts it: steps that share it may change links meanwhile.
            within = mount.source if mount.origin.kind == "scratch" else ""
            folders.append(StepFolder(str(place), within, mount.target, mount.read_only))
        elif mount.kind == "tmpfs":
            mounts.append(TmpfsMount(mount.target, mount.size))
        elif mount.kind == "ssh":
            if (lent := await _lend(solver, mount, stack)) is not None:
                mounts.append(lent)
                sockets.append(f"SSH_AUTH_SOCK={mount.target}")
        else:
            _secret(solver, mount, files, env)
    request = solver.request
    resources = Resources(ulimits=request.ulimits, cgroup_parent=request.cgroup_parent)
    if request.shm_size is not None:
        resources = replace(resources, shm_size=request.shm_size)
    return Step(
        ProcessSpec(op.args, (*env, *sockets[:1]), op.cwd, op.user),
        network=_NETWORKS[op.network],
        hostname=_hostname(solver),
        mounts=tuple(mounts),
        views=tuple(views),
        folders=tuple(folders),
        files=tuple(files),
        privileged=op.security == "insecure",
        resources=resources,
        extra_hosts=request.extra_hosts,
    )


async def _lend(solver: Solver, mount: MountOp, stack: AsyncExitStack) -> BindMount | None:
    """The socket of an agent; None when it wasn't given and needn't be."""
    agent = solver.request.agents.get(mount.id)
    if agent is None:
        if mount.required:
            raise NotFound(f"SSH agent {mount.id}: not found", hint=f"give it: scow build --ssh {mount.id}")
        return None
    directory = await stack.enter_async_context(solver.bench.directory())
    mode = 0o600 if mount.mode is None else mount.mode
    path = await stack.enter_async_context(lent(agent, directory, uid=mount.uid, gid=mount.gid, mode=mode))
    # Read-only: it can be spoken to, but its mode and owner stay what the build says.
    return BindMount(str(path), mount.target, read_only=True)


def _hostname(solver: Solver) -> str:
    return solver.request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME") or "buildkitsandbox"


def _secret(solver: Solver, mount: MountOp, files: list[StepFile], env: list[str]) -> None:
    content = solver.request.secrets.get(mount.id)
    if content is None:
        if mount.required:
            raise NotFound(f"secret {mount.id}: not found", hint=f"give it: scow build --secret id={mount.id},src=FILE")
        return
    if mount.env:
        env.append(f"{mount.env}={content.decode(errors='surrogateescape')}")
    if mount.target:
        files.append(StepFile(mount.target, content, 0o400 if mount.mode is None else mount.mode, mount.uid, mount.gid))
