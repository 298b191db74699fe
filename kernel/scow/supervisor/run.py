"""A container's task tree: mount, network, exec, entered one inside the other and left in reverse."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import trio

from scow.aio import cleanup
from scow.engine.core import Core
from scow.engine.images import find_snapshot
from scow.engine.reclaim import give_back
from scow.engine.removal import discard
from scow.errors import Conflict, Internal, NotFound, ScowError
from scow.keeper.logfile import LogFile
from scow.lifecycle import Happening
from scow.model.container import Container, ContainerSpec, ContainerState, Status
from scow.model.digest import Digest
from scow.model.network import Endpoint, NetworkRequest
from scow.model.process import AdoptRequest, ContainerProcess, ExecRequest, ExitStatus, ProcessSpec, Stdio
from scow.model.storage import MountRequest, Snapshot
from scow.state import containers
from scow.state.journal import JournalFile, unreleased
from scow.supervisor.control import Connection, Late, Running, failure, listen, serve_control, start_pumps
from scow.supervisor.etc import write_etc
from scow.supervisor.frames import Stream
from scow.supervisor.giveway import SETTLED, become_keeper, may_rest, slim
from scow.supervisor.hub import Client, Hub, Pipes, tell_all
from scow.supervisor.kept import Kept
from scow.supervisor.protocol import SuperviseRequest, log_path

#: A container that ran this long before it ended gets its restart delay back (Docker's rule), in seconds.
_STEADY: Final = 10.0
_FIRST_DELAY, _LAST_DELAY = 0.1, 60.0
#: How long output may still come after the last process has ended, in seconds.
_DRAIN: Final = 2.0


async def supervise(core: Core, request: SuperviseRequest, channel: trio.SocketStream, lock: int) -> None:
    """Run one container from start to end; whoever holds the channel is told how it goes. `lock`: see liveness."""
    container = containers.find(core.database, request.container)
    supervisor = Supervisor(core, request, container, lock, Client(channel))
    await _supervised(supervisor, supervisor.run(channel))


async def supervise_kept(core: Core, request: SuperviseRequest, kept: Kept) -> None:
    """Take a running container over from its keeper, until it is at rest again or has come to its end."""
    container = containers.find(core.database, request.container)
    supervisor = Supervisor(core, request, container, kept.fds["lock"])
    await _supervised(supervisor, supervisor.go_on(kept))


async def _supervised(supervisor: Supervisor, running: Coroutine[Any, Any, None]) -> None:
    try:
        await running
    except (ScowError, BaseExceptionGroup) as error:
        if supervisor.has_keeper:
            raise  # the container runs on: its keeper fetches another supervisor
        await _failed(supervisor, error)


async def _failed(supervisor: Supervisor, error: ScowError | BaseExceptionGroup[BaseException]) -> None:
    """Record and tell; what is no error of ours is raised again."""
    if isinstance(error, ScowError):
        await supervisor.report_failure(error)
        return
    ours = error.subgroup(ScowError)
    await supervisor.report_failure(_first(ours) if ours is not None else Internal(f"the supervisor failed: {error!r}"))
    if ours is None:
        raise error


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

    def __init__(
        self, core: Core, request: SuperviseRequest, container: Container, lock: int, client: Client | None = None
    ) -> None:
        self._core = core
        self._request = request
        self._spec = container.spec
        self._rundir = core.paths.rundir(container.spec.id)
        self._home = core.paths.container(container.spec.id)
        self._lock = lock
        #: Who wants to know that it has started, or why not.
        self._client = client
        self._journal: JournalFile | None = None
        self._log = LogFile(
            str(log_path(self._home, container.spec.id)), container.spec.log_max_size, container.spec.log_max_file
        )
        self._hub = Hub(self._log)
        self._running = Running(container.spec, self._hub, core.events, self._note_pause)
        self._restarts = 0
        self._delay = _FIRST_DELAY
        self._started = False
        self._finished = False
        self._listener: socket.socket | None = None
        #: Who takes the running process back when we have nothing more to do.
        self._keeper: Kept | None = None

    @property
    def has_keeper(self) -> bool:
        """Whether somebody else still holds the container."""
        return self._keeper is not None

    async def run(self, channel: trio.SocketStream) -> None:
        """Run the process, again as long as the restart policy says so; then clean up and tell everybody."""
        if self._request.attach and self._client is not None:
            self._hub.attach(self._client)
            self._running.clients.add(self._client)
        self._listener = listen(self._rundir)
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_control, self._listener, self._running)
            nursery.start_soon(self._stop_on_sigterm)
            nursery.start_soon(self._listen_to_channel, channel)
            nursery.start_soon(self._rest_when_settled)
            await self._to_the_end(await self._once())
            nursery.cancel_scope.cancel()

    async def go_on(self, kept: Kept) -> None:
        """The same for a container that a keeper has held since."""
        self._keeper = kept
        state = containers.find(self._core.database, self._spec.id).state
        self._started, self._restarts, self._delay = True, state.restarts, kept.delay
        self._listener = socket.socket(fileno=kept.fds["listener"])
        for stream, rest in kept.rest.items():
            self._log.rest[stream][:] = rest
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kept.listen)
            nursery.start_soon(self._stop_on_sigterm)
            nursery.start_soon(self._stop_when_asked, kept)
            # Whoever has knocked must find the process and its input.
            if "stdin" in kept.fds:
                self._hub.take_stdin(kept.fds["stdin"], kept.close_stdin, terminal=self._spec.process.tty)
            self._running.paused = state.status is Status.PAUSED
            self._running.process = self._adopt(kept, paused=self._running.paused)
            await nursery.start(serve_control, self._listener, self._running)
            nursery.start_soon(self._rest_when_settled)
            await self._to_the_end(await self._kept_once(kept, state.started))
            nursery.cancel_scope.cancel()

    async def _to_the_end(self, outcome: _Outcome) -> None:
        """The process has ended: run it again if the restart policy says so, else finish."""
        while self._again(outcome.status):
            self._delay = _FIRST_DELAY if outcome.lasted >= _STEADY else self._delay
            self._restarts += 1
            with trio.move_on_after(self._delay):
                await self._running.stop_wanted.wait()
            self._delay = min(self._delay * 2, _LAST_DELAY)
            if self._running.stopping:
                break
            outcome = await self._once()
        self._finish(outcome.status)
        with cleanup(2, "tell clients"):
            await tell_all(self._running.clients, exited=_plain(outcome.status))

    async def report_failure(self, error: ScowError) -> None:
        """The container didn't start (or its supervision failed): record it and tell the one who started it."""
        self._log.close()
        try:
            if self._finished:
                pass  # how it ended is on record: what goes wrong afterwards says nothing about that
            elif self._started:
                self._finish(ExitStatus(code=255))
            else:
                code = {"no-command": 127, "not-executable": 126}.get(error.kind.value, 128)
                self._fail(error, code)
        finally:
            with cleanup(2, "report a failure"):
                await self._tell(failed={"kind": error.kind.value, "message": error.message, "hint": error.hint})

    async def _tell(self, **message: object) -> None:
        if self._client is not None:
            await self._client.tell(**message)

    async def _once(self) -> _Outcome:
        began = time.monotonic()
        self._journal = self._new_journal()
        async with AsyncExitStack() as stack:
            process, pipes = await self._enter(stack)
            self._running.process, self._running.paused = process, False
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
        self._note_death(status)
        return _Outcome(status, time.monotonic() - began)

    async def _kept_once(self, kept: Kept, began: float) -> _Outcome:
        """What is left of `_once` when the process has been started by another supervisor.

        That one's stages can't be left any more. What they hold is in the journal, and goes as it does when a
        supervisor is killed: by `reclaim`.
        """
        process = self._running.live()
        async with trio.open_nursery() as pumps:
            for name, stream in (("stdout", Stream.STDOUT), ("stderr", Stream.STDERR)):
                if name in kept.fds:
                    pumps.start_soon(self._hub.pump, kept.fds[name], stream)
            if process.console is not None:
                pumps.start_soon(self._hub.pump, os.dup(process.console), Stream.STDOUT)
            status = await process.wait()
            pumps.cancel_scope.deadline = trio.current_time() + _DRAIN
        self._running.process = None
        with cleanup(1, "close standard input"):
            await self._hub.end_stdin()
        self._keeper = None
        kept.over()
        give_back(self._core, self._rundir)
        self._note_death(status)
        return _Outcome(status, time.time() - began)

    def _adopt(self, kept: Kept, *, paused: bool) -> ContainerProcess:
        spec, fds = self._spec, kept.fds
        return self._core.stages.adopt(
            AdoptRequest(
                spec.runtime, spec.id, spec.isolation, kept.pid, fds["pidfd"], fds.get("console"), paused, kept.wait
            )
        )

    def _new_journal(self) -> JournalFile:
        """What the last supervisor held and nobody could reclaim stays on the record."""
        if self._journal is not None:
            self._journal.close()
        inherited = list(unreleased(self._rundir))
        journal = JournalFile(self._rundir)
        for stage, plugin, handle in reversed(inherited):
            journal.append(stage, plugin, handle)
        return journal

    def _note_death(self, status: ExitStatus) -> None:
        spec = self._spec
        self._core.events.emit_container("die", spec, exitCode=status.exit_code)

    async def _enter(self, stack: AsyncExitStack) -> tuple[ContainerProcess, Pipes | None]:
        """Mount, network, exec: the three held stages, in this order."""
        core, spec, journal = self._core, self._spec, self._journal
        assert journal is not None
        scratch = self._home / "scratch"
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        rootfs = await stack.enter_async_context(
            core.stages.mount(
                MountRequest(
                    spec.storage,
                    spec.id,
                    layer_snapshots(core, spec),
                    scratch,
                    journal.bound("mount", spec.storage),
                    volatile=spec.auto_remove,
                )
            )
        )
        endpoint = await stack.enter_async_context(core.stages.network(self._network_request(journal)))
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
            journal=journal.bound("exec", spec.runtime),
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

    def _network_request(self, journal: JournalFile) -> NetworkRequest:
        spec = self._spec
        return NetworkRequest(
            spec.network,
            spec.id,
            spec.name,
            spec.isolation.hostname,
            journal.bound("network", spec.network),
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
        self._core.events.emit_container("start", self._spec)
        if not self._started:
            self._started = True
            await self._tell(started={"pid": process.pid})

    def _again(self, status: ExitStatus) -> bool:
        restart = self._spec.restart
        if self._running.stopping or self._spec.auto_remove:
            return False
        if restart.policy == "on-failure":
            return status.exit_code != 0 and (restart.maximum == 0 or self._restarts < restart.maximum)
        return restart.policy in ("always", "unless-stopped")

    def _finish(self, status: ExitStatus) -> None:
        """Record the end; a container that was run with --rm goes away."""
        self._finished = True
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
        if self._journal is not None:
            self._journal.close()
        shutil.rmtree(self._rundir, ignore_errors=True)

    def _note_pause(self, paused: bool) -> None:
        happening = Happening.PAUSE if paused else Happening.RESUME
        containers.change(self._core.database, self._spec.id, happening)
        action = "pause" if paused else "unpause"
        self._core.events.emit_container(action, self._spec)

    async def _listen_to_channel(self, channel: trio.SocketStream) -> None:
        """The one who started us may be attached: take its input and control messages."""
        if not self._request.attach or self._client is None:
            return
        connection = Connection(channel, self._running)
        try:
            with self._running.conversation():
                await connection.converse(Late(self._running), self._hub, stdin=self._request.stdin)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception as error:  # noqa: BLE001 - what a client says must not end the container
            await self._tell(failed=failure(error))
        self._hub.detach(self._client)
        if self._request.stdin:
            await self._running.left()

    async def _rest_when_settled(self) -> None:
        """Give way to a keeper when nobody has wanted anything for a while; where that can't be, at least slim."""
        slimmed = False
        while True:
            begun = self._running.begun
            await trio.sleep(SETTLED)
            if not self._running.at_rest or self._running.begun != begun:
                continue
            if self._keeper is not None:
                self._keeper.go_back(self._log.rest)
            if may_rest(self._core, self._spec):
                self._become_keeper()
            if not slimmed:
                slim(self._core)
                slimmed = True

    def _become_keeper(self) -> None:
        """Doesn't come back, unless this can't be done."""
        process = self._running.process
        assert process is not None
        assert self._listener is not None
        fds = {"lock": self._lock, "listener": self._listener.fileno(), "pidfd": os.pidfd_open(process.pid)}
        if process.console is not None:
            fds["console"] = process.console
        else:
            fds |= {stream.name.lower(): fd for stream, fd in self._hub.sources.items()}
        if self._hub.stdin is not None:
            fds["stdin"] = self._hub.stdin
        become_keeper(self._core, self._request, process.pid, fds, self._log, self._delay)
        os.close(fds["pidfd"])

    async def _stop_when_asked(self, kept: Kept) -> None:
        await kept.terminated()
        await self._running.stop(None)

    async def _stop_on_sigterm(self) -> None:
        """The machine goes down: stop the container as a user would."""
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                if self._running.process is not None:
                    await self._running.stop(None)


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
