"""A container's task tree: mount, network, exec, entered one inside the other and left in reverse."""

from __future__ import annotations

import shutil
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

import trio

from scow.aio import cleanup
from scow.engine.core import Core
from scow.engine.images import find_snapshot
from scow.engine.removal import discard
from scow.errors import Conflict, Internal, NotFound, ScowError
from scow.lifecycle import Happening
from scow.model.container import Container, ContainerSpec, ContainerState
from scow.model.digest import Digest
from scow.model.network import Endpoint, NetworkRequest
from scow.model.process import ContainerProcess, ExecRequest, ExitStatus, ProcessSpec, Stdio
from scow.model.storage import MountRequest, Snapshot
from scow.state import containers
from scow.state.journal import JournalFile, unreleased
from scow.supervisor.control import Connection, Running, failure, serve_control, start_pumps
from scow.supervisor.etc import write_etc
from scow.supervisor.hub import Client, Hub, Pipes
from scow.supervisor.logfile import LogFile
from scow.supervisor.protocol import SuperviseRequest, log_path
from scow.supervisor.rest import rest_when_settled

#: A container that ran this long before it ended gets its restart delay back (Docker's rule), in seconds.
_STEADY: Final = 10.0
_FIRST_DELAY, _LAST_DELAY = 0.1, 60.0
#: How long output may still come after the last process has ended, in seconds.
_DRAIN: Final = 2.0


async def supervise(core: Core, request: SuperviseRequest, channel: trio.SocketStream) -> None:
    """Run one container from start to end; whoever holds the channel is told how it goes."""
    container = containers.find(core.database, request.container)
    supervisor = Supervisor(core, request, container, channel)
    try:
        await supervisor.run()
    except ScowError as error:
        await supervisor.report_failure(error)
    except BaseExceptionGroup as group:
        ours = group.subgroup(ScowError)
        failure = _first(ours) if ours is not None else Internal(f"the supervisor failed: {group!r}")
        await supervisor.report_failure(failure)
        if ours is None:
            raise


def _first(group: BaseException) -> ScowError:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    assert isinstance(group, ScowError)
    return group


@dataclass(slots=True)
class _Outcome:
    """How one run of the process ended."""

    status: ExitStatus
    lasted: float


class Supervisor:
    """Holds one container."""

    def __init__(self, core: Core, request: SuperviseRequest, container: Container, channel: trio.SocketStream) -> None:
        self._core = core
        self._request = request
        self._spec = container.spec
        self._rundir = core.paths.rundir(container.spec.id)
        self._home = core.paths.container(container.spec.id)
        self._channel = channel
        self._client = Client(channel)
        # What the last supervisor held and nobody could reclaim stays on the record.
        inherited = list(unreleased(self._rundir))
        self._journal = JournalFile(self._rundir)
        for stage, plugin, handle in reversed(inherited):
            self._journal.append(stage, plugin, handle)
        self._log = LogFile(
            log_path(self._home, container.spec.id), container.spec.log_max_size, container.spec.log_max_file
        )
        self._hub = Hub(self._log)
        self._running = Running(container.spec, self._hub, core.events, self._note_pause)
        self._restarts = 0
        self._started = False

    async def run(self) -> None:
        """Run the process, again as long as the restart policy says so; then clean up and tell everybody."""
        if self._request.attach:
            self._hub.attach(self._client)
            self._running.clients.add(self._client)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve)
            nursery.start_soon(self._stop_on_sigterm)
            nursery.start_soon(self._listen_to_channel)
            nursery.start_soon(rest_when_settled, self._core.database)
            delay = _FIRST_DELAY
            while True:
                outcome = await self._once()
                if not self._again(outcome.status):
                    break
                delay = _FIRST_DELAY if outcome.lasted >= _STEADY else delay
                self._restarts += 1
                with trio.move_on_after(delay):
                    await self._running.stop_wanted.wait()
                delay = min(delay * 2, _LAST_DELAY)
                if self._running.stopping:
                    break
            self._finish(outcome.status)
            with cleanup(2, "tell clients"):
                for client in self._running.clients:
                    await client.tell(exited=_plain(outcome.status))
            nursery.cancel_scope.cancel()

    async def report_failure(self, error: ScowError) -> None:
        """The container didn't start (or its supervision failed): record it and tell the one who started it."""
        self._log.close()
        try:
            if self._started:
                self._finish(ExitStatus(code=255))
            else:
                code = {"no-command": 127, "not-executable": 126}.get(error.kind.value, 128)
                self._fail(error, code)
        finally:
            with cleanup(2, "report a failure"):
                await self._client.tell(failed={"kind": error.kind.value, "message": error.message, "hint": error.hint})

    async def _once(self) -> _Outcome:
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            process, pipes = await self._enter(stack)
            self._running.process = process
            try:
                async with trio.open_nursery() as pumps:
                    # Before anybody is told: input that comes at once must find a reader.
                    start_pumps(pumps, self._hub, pipes, process, stdin=self._spec.stdin_open)
                    await self._announce(process)
                    status = await process.wait()
                    pumps.cancel_scope.deadline = trio.current_time() + _DRAIN
            finally:
                self._running.process = None
                with cleanup(1, "close standard input"):
                    await self._hub.end_stdin()
        self._core.events.emit(
            "container", "die", self._spec.id, name=self._spec.name, image=self._spec.image, exitCode=status.exit_code
        )
        return _Outcome(status, time.monotonic() - began)

    async def _enter(self, stack: AsyncExitStack) -> tuple[ContainerProcess, Pipes | None]:
        """Mount, network, exec: the three held stages, in this order."""
        core, spec = self._core, self._spec
        scratch = self._home / "scratch"
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        rootfs = await stack.enter_async_context(
            core.stages.mount(
                MountRequest(
                    spec.storage,
                    spec.id,
                    layer_snapshots(core, spec),
                    scratch,
                    self._journal.bound("mount", spec.storage),
                    volatile=spec.auto_remove,
                )
            )
        )
        endpoint = await stack.enter_async_context(core.stages.network(self._network_request()))
        self._note_endpoint(endpoint)
        pipes = None if spec.process.tty else Pipes(stdin=spec.stdin_open)
        request = ExecRequest(
            driver=spec.runtime,
            container=spec.id,
            process=self._process_spec(),
            isolation=spec.isolation,
            rootfs=rootfs,
            endpoint=endpoint,
            stdio=None if pipes is None else Stdio(pipes.stdin, pipes.stdout, pipes.stderr),
            journal=self._journal.bound("exec", spec.runtime),
            rundir=str(self._rundir),
            etc=write_etc(self._home, spec, endpoint),
        )
        try:
            process = await stack.enter_async_context(core.stages.exec(request))
        except BaseException:
            if pipes is not None:
                pipes.close_all()
            raise
        return process, pipes

    def _process_spec(self) -> ProcessSpec:
        rows = self._request.rows or self._spec.process.rows
        return replace(self._spec.process, rows=rows, columns=self._request.columns or self._spec.process.columns)

    def _network_request(self) -> NetworkRequest:
        spec = self._spec
        return NetworkRequest(
            spec.network,
            spec.id,
            spec.name,
            spec.isolation.hostname,
            self._journal.bound("network", spec.network),
            ports=spec.ports,
            nameservers=spec.nameservers,
            search=spec.search,
            dns_options=spec.dns_options,
        )

    def _note_endpoint(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def _announce(self, process: ContainerProcess) -> None:
        """The process runs: record it, tell it."""
        endpoint, restarts = self._endpoint, self._restarts

        def running(state: ContainerState) -> ContainerState:
            return replace(
                state,
                pid=process.pid,
                error="",
                exit_code=0,
                oom_killed=False,
                started=time.time(),
                finished=0,
                restarts=restarts,
                stopped_by_user=False,
                addresses=tuple(str(address) for address in endpoint.addresses),
                gateway=endpoint.gateway,
                mac=endpoint.mac,
                ports=endpoint.ports,
            )

        containers.change(self._core.database, self._spec.id, Happening.START, running)
        self._core.events.emit("container", "start", self._spec.id, name=self._spec.name, image=self._spec.image)
        if not self._started:
            self._started = True
            await self._client.tell(started={"pid": process.pid})

    def _again(self, status: ExitStatus) -> bool:
        restart = self._spec.restart
        if self._running.stopping or self._spec.auto_remove:
            return False
        if restart.policy == "on-failure":
            return status.exit_code != 0 and (restart.maximum == 0 or self._restarts < restart.maximum)
        return restart.policy in ("always", "unless-stopped")

    def _finish(self, status: ExitStatus) -> None:
        """Record the end; a container that was run with --rm goes away."""
        stopped = self._running.stopping

        def ended(state: ContainerState) -> ContainerState:
            return replace(
                state,
                pid=0,
                exit_code=status.exit_code,
                oom_killed=status.oom_killed,
                finished=time.time(),
                stopped_by_user=stopped,
                addresses=(),
                gateway="",
                mac="",
                ports=(),
            )

        try:
            changed = containers.change(self._core.database, self._spec.id, Happening.EXIT, ended)
        except (NotFound, Conflict):
            changed = None  # somebody removes it by force at this moment, and finishes what is left
        if changed is not None and self._spec.auto_remove:
            discard(self._core, changed)
        self._leave_rundir()

    def _fail(self, error: ScowError, code: int) -> None:
        def failed(state: ContainerState) -> ContainerState:
            return replace(state, error=error.message, exit_code=code)

        try:
            changed = containers.change(self._core.database, self._spec.id, Happening.FAIL, failed)
        except (NotFound, Conflict):
            changed = None
        if changed is not None and self._spec.auto_remove:
            discard(self._core, changed)
        self._leave_rundir()

    def _leave_rundir(self) -> None:
        """Everything in the run directory was released; the lock's descriptor is closed by our end."""
        self._journal.close()
        shutil.rmtree(self._rundir, ignore_errors=True)

    def _note_pause(self, paused: bool) -> None:
        happening = Happening.PAUSE if paused else Happening.RESUME
        containers.change(self._core.database, self._spec.id, happening)
        action = "pause" if paused else "unpause"
        self._core.events.emit("container", action, self._spec.id, name=self._spec.name, image=self._spec.image)

    async def _serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        await serve_control(self._rundir, self._running, task_status=task_status)

    async def _listen_to_channel(self) -> None:
        """The one who started us may be attached: take its input and control messages."""
        connection = Connection(self._channel, self._running)
        try:
            if self._request.attach:
                process = _Late(self._running)
                await connection.converse(process, self._hub, stdin=self._request.stdin)
                if self._request.stdin:
                    await self._hub.end_stdin()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._hub.detach(self._client)
        except Exception as error:  # noqa: BLE001 - what a client says must not end the container
            await self._client.tell(failed=failure(error))
            self._hub.detach(self._client)

    async def _stop_on_sigterm(self) -> None:
        """The machine goes down: stop the container as a user would."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                if self._running.process is not None:
                    await self._running.stop(None)


class _Late:
    """The container's process, which may not have started yet when its first client speaks."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def pid(self) -> int:
        return self._running.live().pid

    @property
    def console(self) -> int | None:
        return self._running.live().console

    async def wait(self) -> ExitStatus:
        return await self._running.live().wait()

    def signal(self, number: int, *, everyone: bool = False) -> None:
        if self._running.process is not None:
            self._running.process.signal(number, everyone=everyone)

    def resize(self, rows: int, columns: int) -> None:
        if self._running.process is not None:
            self._running.process.resize(rows, columns)


def layer_snapshots(core: Core, spec: ContainerSpec) -> tuple[Snapshot, ...]:
    """The snapshots of a container's layers, lowest first. Raises NotFound."""
    found = []
    for text in spec.layers:
        snapshot = find_snapshot(core, spec.storage, Digest.parse(text))
        if snapshot is None:
            raise NotFound(
                f"layer {text[:19]}… of image {spec.image} is not unpacked for {spec.storage} any more",
                hint=f"pull it again: scow pull {spec.image}",
            )
        found.append(snapshot)
    return tuple(found)


def _plain(status: ExitStatus) -> dict[str, object]:
    return {"code": status.code, "signal": status.signal, "oom_killed": status.oom_killed}
