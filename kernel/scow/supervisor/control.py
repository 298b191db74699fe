"""The control socket: each connection gives one order and gets its answer, output and end."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from scow.aio import cleanup
from scow.errors import Conflict, Internal, Invalid, ScowError
from scow.events import EventLog
from scow.model.container import ContainerSpec
from scow.model.process import ContainerProcess, ExitStatus, Process, Stdio
from scow.model.signals import signal_number
from scow.supervisor.frames import Decoder, Frame, Stream
from scow.supervisor.hub import Client, Hub, Pipes
from scow.supervisor.protocol import Order, order_of, socket_address

_CHUNK = 64 * 1024
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(slots=True)
class Running:
    """What control connections act on: the container's process while it runs."""

    spec: ContainerSpec
    hub: Hub
    events: EventLog
    #: Writes the status "paused" or "running" to the database.
    note_pause: Callable[[bool], None]
    process: ContainerProcess | None = None
    paused: bool = False
    stopping: bool = False
    #: Set when somebody wants the container stopped, also between two runs of its process.
    stop_wanted: trio.Event = field(default_factory=trio.Event)
    #: Everyone who waits for the end.
    clients: set[Client] = field(default_factory=set)
    #: Conversations that go on, and how many there have been.
    conversations: int = 0
    begun: int = 0

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """Somebody is talking with us for the body."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def begin(self) -> None:
        """A conversation begins; whoever says so says `end` too."""
        self.conversations += 1
        self.begun += 1

    def end(self) -> None:
        """It is over."""
        self.conversations -= 1

    @property
    def at_rest(self) -> bool:
        """The process runs, and nobody wants anything."""
        return self.process is not None and not self.stopping and not self.conversations

    async def left(self) -> None:
        """A client that fed the process has left: was it the only one that there was to be?"""
        if self.spec.stdin_once and not self.spec.process.tty:
            with cleanup(1, "end standard input"):
                await self.hub.end_stdin()

    def live(self) -> ContainerProcess:
        """The process. Raises Conflict when it doesn't run."""
        if self.process is None:
            raise Conflict(f"container {self.spec.name} is not running")
        return self.process

    def pause(self) -> None:
        """Freeze the container, and write it down. Raises as the runtime does."""
        process = self.live()
        if self.stopping:
            raise Conflict(f"container {self.spec.name} is being stopped")
        self.note_pause(True)
        try:
            process.pause()
        except Exception:
            self.note_pause(False)
            raise
        self.paused = True

    def resume(self) -> None:
        """Let it go on. Raises Conflict when it isn't paused, and as the runtime does."""
        self.live().resume()
        self.paused = False
        self.note_pause(False)

    def signal(self, number: int, *, everyone: bool = False) -> None:
        """Send a signal. What is to end it ends a paused one too, as with docker; others wait until it goes on.

        A frozen process takes no signal, with the freezer of version 1 not even SIGKILL. Thawed afterwards, it does
        nothing else first.
        """
        self.live().signal(number, everyone=everyone)
        if self.paused and number in (signal.SIGKILL, signal_number(self.spec.stop_signal)):
            self.resume()

    async def stop(self, timeout: float | None) -> None:
        """Docker's stop: the stop signal, a while to obey, then SIGKILL."""
        self.stopping = True
        self.stop_wanted.set()
        if self.process is None:
            return  # it waits for its next run, which won't come
        process = self.process
        with trio.move_on_after(self.spec.stop_timeout if timeout is None else timeout):
            self.signal(signal_number(self.spec.stop_signal))
            await process.wait()
            return
        if self.process is process:
            self.signal(signal.SIGKILL)
        await process.wait()


class Late:
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
            self._running.signal(number, everyone=everyone)

    def resize(self, rows: int, columns: int) -> None:
        if self._running.process is not None:
            self._running.process.resize(rows, columns)


def listen(rundir: Path) -> socket.socket:
    """The control socket, made anew.

    Not trio's own bind: for a socket in the file system that starts a thread, and supervisors fork.
    """
    (rundir / "control.sock").unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(rundir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock.bind(socket_address(directory))
        os.chmod(rundir / "control.sock", 0o600)
        sock.listen(64)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)
    return sock


async def serve_control(sock: socket.socket, running: Running, *, task_status: trio.TaskStatus[None]) -> None:
    """Serve those who come to the control socket, until cancelled.

    Not trio.serve_listeners: whoever is let in must count from that very moment on, or the supervisor might give way
    between the accept and the first step of the task that serves it.
    """
    sock.setblocking(False)
    with sock:
        await _let_in(sock, running, task_status)


async def _let_in(sock: socket.socket, running: Running, task_status: trio.TaskStatus[None]) -> None:
    async with trio.open_nursery() as handlers:
        task_status.started()
        while True:
            await trio.lowlevel.wait_readable(sock)
            try:
                client, _ = sock.accept()
            except OSError as error:
                if error.errno in _NO_ROOM:
                    await trio.sleep(0.1)
                continue
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
            running.begin()
            handlers.start_soon(_serve, stream, running)


async def _serve(stream: trio.SocketStream, running: Running) -> None:
    try:
        await Connection(stream, running).serve()
    finally:
        running.end()


class Connection:
    """One client's connection."""

    def __init__(self, stream: trio.SocketStream, running: Running) -> None:
        self._stream = stream
        self._running = running
        self._client = Client(stream)
        self._decoder = Decoder()
        self._pending: list[Frame] = []

    async def serve(self) -> None:
        """Take the order and carry it out; errors go to the client."""
        async with self._stream:
            try:
                order = await self._order()
                if order is not None:
                    await self._carry_out(order)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            except Exception as error:  # noqa: BLE001 - what one client does must not end the container
                await self._client.tell(failed=failure(error))

    async def _order(self) -> Order | None:
        frame = await self._next()
        if frame is None:
            return None
        if frame.stream is not Stream.CONTROL:
            raise Invalid("the first frame on a control socket must be an order")
        try:
            return order_of(frame.data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Invalid(f"control socket: {error}") from None

    async def _next(self) -> Frame | None:
        """The next frame; None when the client has ended its side."""
        while not self._pending:
            data = await self._stream.receive_some(_CHUNK)
            if not data:
                return None
            self._pending.extend(self._decoder.feed(data))
        return self._pending.pop(0)

    async def _carry_out(self, order: Order) -> None:
        handlers: dict[str, Callable[[Order], Awaitable[None]]] = {
            "attach": self._attach,
            "exec": self._exec,
            "signal": self._signal,
            "stop": self._stop,
            "pause": self._pause,
            "resume": self._resume,
            "wait": self._wait,
            "stats": self._stats,
        }
        handler = handlers.get(order.do)
        if handler is None:
            raise Invalid(f"control socket: no order {order.do!r}")
        await handler(order)

    async def _signal(self, order: Order) -> None:
        self._running.signal(order.number, everyone=order.everyone)
        await self._client.tell(answer={})

    async def _stop(self, order: Order) -> None:
        self._running.clients.add(self._client)  # the end is told when everything is cleaned up
        await self._running.stop(order.timeout)
        await trio.sleep_forever()

    async def _wait(self, order: Order) -> None:
        self._running.clients.add(self._client)
        try:
            while await self._next() is not None:
                pass
        finally:
            if not self._client.gone:
                self._running.clients.discard(self._client)

    async def _pause(self, order: Order) -> None:
        self._running.pause()
        await self._client.tell(answer={})

    async def _resume(self, order: Order) -> None:
        self._running.resume()
        await self._client.tell(answer={})

    async def _stats(self, order: Order) -> None:
        await self._client.tell(answer=self._running.live().stats())

    async def _attach(self, order: Order) -> None:
        process = self._running.live()
        self._running.hub.attach(self._client)
        self._running.clients.add(self._client)
        try:
            await self._client.tell(started={"pid": process.pid})
            await self.converse(Late(self._running), self._running.hub, stdin=order.stdin)
        finally:
            self._running.hub.detach(self._client)
            if order.stdin:
                await self._running.left()

    async def converse(self, process: Process, hub: Hub, *, stdin: bool) -> None:
        """Take a client's input and control messages to a process, until the client leaves."""
        while (frame := await self._next()) is not None:
            if frame.stream is Stream.STDIN:
                if stdin:
                    await hub.feed(frame)
            elif frame.stream is Stream.CONTROL:
                control(process, frame.control())

    async def _exec(self, order: Order) -> None:
        if order.process is None:
            raise Invalid("control socket: exec without a process")
        running = self._running
        events, spec = EventLog(running.events.path, order.command), running.spec
        what = " ".join(order.process.args)
        events.emit_container("exec_start", spec, exec=what)
        status = await run_inside(running.live(), order, self)
        events.emit_container("exec_die", spec, exitCode=status.exit_code)

    async def started(self, pid: int) -> None:
        """Tell the client that its process runs."""
        await self._client.tell(started={"pid": pid})

    async def exited(self, status: ExitStatus) -> None:
        """Tell the client that its process has ended."""
        await self._client.tell(exited=msgspec.to_builtins(status))

    def attach_to(self, hub: Hub) -> None:
        """Send a hub's output to this client."""
        hub.attach(self._client)


async def run_inside(container: ContainerProcess, order: Order, connection: Connection) -> ExitStatus:
    """Run another process in the container and connect it with the client. Raises what exec raises."""
    assert order.process is not None
    hub = Hub()
    if not order.detach:
        connection.attach_to(hub)
    pipes = None if order.process.tty else Pipes(stdin=order.stdin)
    stdio = None if pipes is None else Stdio(pipes.stdin, pipes.stdout, pipes.stderr)
    try:
        held = container.exec(order.process, stdio)
        process = await held.__aenter__()
    except BaseException:
        if pipes is not None:
            pipes.close_all()
        raise
    try:
        async with trio.open_nursery() as conversation:
            await connection.started(process.pid)
            conversation.start_soon(_listen, connection, process, hub, order)
            async with trio.open_nursery() as pumps:
                start_pumps(pumps, hub, pipes, process, stdin=order.stdin)
                status = await process.wait()
                # Whoever inherited the pipes may keep them open for ever; the process itself has ended.
                pumps.cancel_scope.deadline = trio.current_time() + 1
            await connection.exited(status)
            conversation.cancel_scope.cancel()
    finally:
        await held.__aexit__(None, None, None)
    return status


async def _listen(connection: Connection, process: Process, hub: Hub, order: Order) -> None:
    try:
        await connection.converse(process, hub, stdin=order.stdin)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    if order.stdin:
        await hub.end_stdin()


def start_pumps(nursery: trio.Nursery, hub: Hub, pipes: Pipes | None, process: Process, *, stdin: bool) -> None:
    """Connect a started process with its hub: pipes, or its terminal."""
    if pipes is not None:
        pipes.close_inner()
        nursery.start_soon(hub.pump, pipes.stdout_reader, Stream.STDOUT)
        nursery.start_soon(hub.pump, pipes.stderr_reader, Stream.STDERR)
        if pipes.stdin_writer is not None:
            hub.take_stdin(pipes.stdin_writer)
    elif process.console is not None:
        nursery.start_soon(hub.pump, os.dup(process.console), Stream.STDOUT)
        if stdin:
            hub.take_stdin(os.dup(process.console), terminal=True)


def failure(error: Exception) -> dict[str, str | None]:
    """What a client is told about an error; of a nursery's group the first ScowError."""
    found: BaseException = error
    if isinstance(error, ExceptionGroup):
        found = error.subgroup(ScowError) or error
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
    if not isinstance(found, ScowError):
        structlog.get_logger("scow").error("control.failed", exc_info=error)
        found = Internal(f"the supervisor failed: {type(found).__name__}: {found}")
    return {"kind": found.kind.value, "message": found.message, "hint": found.hint}


def control(process: Process, message: dict[str, Any]) -> None:
    """Do what a control message says. Raises Internal for one that isn't known."""
    match message:
        case {"resize": [int(rows), int(columns)]}:
            process.resize(rows, columns)
        case {"signal": int(number)}:
            process.signal(number)
        case _:
            raise Internal(f"control message {sorted(message)} is not known")
