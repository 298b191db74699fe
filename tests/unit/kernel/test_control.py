"""The control socket: whatever a client says, the container and its other clients go on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from scow.engine.session import Conversation, connect, conversing
from scow.errors import Conflict, Internal, Invalid, NoCommand, ScowError
from scow.events import EventLog
from scow.keeper.logfile import LogFile
from scow.model.container import ContainerSpec
from scow.model.process import ExitStatus, Isolation, ProcessSpec, Stdio
from scow.supervisor.control import Running, listen, serve_control
from scow.supervisor.frames import Stream, encode, encode_control
from scow.supervisor.hub import Client, Hub, tell_all
from scow.supervisor.protocol import Order


class ToyProcess:
    """A container's process that does what it is told."""

    def __init__(self) -> None:
        self.pid = 7
        self.console = None
        self.said: list[Any] = []
        self.end = trio.Event()
        self.status = ExitStatus(code=0)

    async def wait(self) -> ExitStatus:
        await self.end.wait()
        return self.status

    def signal(self, number: int, *, everyone: bool = False) -> None:
        if not 0 < number < 65:
            raise OSError(22, "Invalid argument")
        self.said.append(number)
        if number == 9:
            self.status = ExitStatus(signal=9)
            self.end.set()

    def resize(self, rows: int, columns: int) -> None:
        self.said.append((rows, columns))

    @asynccontextmanager
    async def exec(self, process: ProcessSpec, stdio: Stdio | None) -> AsyncIterator[ToyProcess]:
        if process.args == ("missing",):
            raise NoCommand("no such command")
        if process.args == ("broken",):
            raise KeyError("bug")
        inner = ToyProcess()
        assert stdio is not None
        os.write(stdio.stdout, b"out " + process.args[0].encode())
        if process.args == ("quick",):
            inner.status = ExitStatus(code=5)
            inner.end.set()
        yield inner

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")

    def stats(self) -> dict[str, int]:
        return {"pids": 1}


class World:
    """A running container's control socket, with a way in."""

    def __init__(self, rundir: Path) -> None:
        self.rundir = rundir
        spec = ContainerSpec(
            id="c" * 64, name="web", image="i", image_id="i", manifest="m", layers=(), storage="s",
            network="n", runtime="r",            process=ProcessSpec(("true",)), isolation=Isolation("h"),
            created=1.0, stop_timeout=0.05,
        )  # fmt: skip
        self.hub = Hub(LogFile(rundir / "log", 0, 1))
        self.process = ToyProcess()
        self.notes: list[bool] = []
        self.running = Running(spec, self.hub, EventLog(rundir / "events"), self.notes.append)
        self.running.process = cast(Any, self.process)

    @asynccontextmanager
    async def talk(self, order: Order | None = None) -> AsyncIterator[Conversation]:
        stream = await connect(self.rundir)
        assert stream is not None
        async with conversing(stream) as session:
            if order is not None:
                await session.order(order)
            yield session

    async def alive(self) -> bool:
        async with self.talk(Order("stats")) as session:
            return await session.answered() == {"pids": 1}


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> World:
    made = World(tmp_path)

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        await serve_control(listen(tmp_path), made.running, task_status=task_status)

    await nursery.start(serve)
    return made


async def test_orders(world: World) -> None:
    assert await world.alive()
    for do, said in (("pause", "pause"), ("resume", "resume")):
        async with world.talk(Order(do)) as session:
            assert await session.answered() == {}
        assert world.process.said[-1] == said
    assert world.notes == [True, False]
    async with world.talk(Order("signal", number=15)) as session:
        await session.answered()
    assert world.process.said[-1] == 15


async def test_not_running(world: World) -> None:
    world.running.process = None
    for do in ("attach", "signal", "stats"):
        async with world.talk(Order(do)) as session:
            with pytest.raises(Conflict):
                await session.answered()


async def test_stop_between_two_runs(world: World) -> None:
    """The restart policy waits at this moment: the next run must not come."""
    world.running.process = None
    async with world.talk(Order("stop")):
        with trio.fail_after(5):
            await world.running.stop_wanted.wait()
    assert world.running.stopping


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 20, encode(Stream.STDIN, b"x"), encode(Stream.CONTROL, b"{"), encode(Stream.CONTROL, b'{"do":3}'),
        encode(Stream.CONTROL, b'{"do":"\xff"}'), encode_control(do="dance"), encode_control(do="exec"),
        encode_control(do="signal", number=-3), encode_control(do="signal", number="x"),
        encode_control(do="exec", process={"args": ["broken"]}),
        encode_control(do="exec", process={"args": ["slow"]}) + encode_control(dance=1),
        encode_control(do="exec", process={"args": ["slow"]}) + b"\xff" * 20,
        encode_control(do="attach") + encode_control(signal=99),
        encode_control(do="attach") + encode(Stream.CONTROL, b"\xff"),
    ],
)  # fmt: skip
async def test_nonsense_is_answered_and_harms_nobody(world: World, data: bytes) -> None:
    stream = await connect(world.rundir)
    assert stream is not None
    with trio.fail_after(2):
        async with conversing(stream) as session:
            await stream.send_all(data)
            with pytest.raises(ScowError):
                await session.wait()
        assert await world.alive()


async def test_clients_that_leave_in_the_middle(world: World) -> None:
    for data in (b"", b"\3\0\0", encode_control(do="wait"), encode_control(do="attach", stdin=True),
                 encode_control(do="exec", process={"args": ["slow"]}, stdin=True)):  # fmt: skip
        stream = await connect(world.rundir)
        assert stream is not None
        await stream.send_all(data)
        await stream.aclose()
    assert await world.alive()


async def test_exec(world: World) -> None:
    async with world.talk(Order("exec", process=ProcessSpec(("quick",)))) as session:
        await session.started()
        assert b"".join([piece.data async for piece in session.output()]) == b"out quick"
        assert (await session.wait()).exit_code == 5
    async with world.talk(Order("exec", process=ProcessSpec(("missing",)))) as session:
        with pytest.raises(NoCommand):
            await session.started()
    assert [e.action for e in world.running.events.past()] == ["exec_start", "exec_die", "exec_start"]


async def test_stop_kills_who_does_not_obey(world: World) -> None:
    async with world.talk(Order("stop")) as session:
        with trio.fail_after(2):
            await world.process.end.wait()
        assert world.process.said == [15, 9]
        assert world.running.stopping
        for client in world.running.clients:
            await client.tell(exited={"code": None, "signal": 9, "oom_killed": False})
        assert (await session.wait()).exit_code == 137


async def test_what_is_to_end_a_paused_one_lets_it_go(world: World) -> None:
    """After the signal, so that it does nothing else first; other signals leave it frozen."""
    for number in (1, 15):
        async with world.talk(Order("pause") if number == 1 else Order("stats")) as session:
            await session.answered()
        async with world.talk(Order("signal", number=number)) as session:
            await session.answered()
    assert (world.process.said, world.notes) == (["pause", 1, 15, "resume"], [True, False])
    world.running.pause()
    await world.running.stop(0.01)
    assert world.process.said[4:] == ["pause", 15, "resume", 9]


async def test_nobody_pauses_what_is_being_stopped(world: World) -> None:
    world.running.stopping = True
    with pytest.raises(Conflict):
        world.running.pause()
    assert world.process.said == []


async def test_the_end_is_told_to_all_who_come_and_go() -> None:
    clients: set[Client] = set()
    told = []

    class Restless(Client):
        """Leaves when it is told, and another one comes."""

        def __init__(self, number: int) -> None:
            self.number = number

        async def tell(self, **message: object) -> None:
            told.append((self.number, message))
            await trio.lowlevel.checkpoint()
            clients.discard(self)
            if self.number < 8:
                clients.add(Restless(self.number + 4))

    clients.update(Restless(number) for number in range(4))
    await tell_all(clients, exited={})
    assert sorted(number for number, _ in told) == list(range(12))
    assert clients == set()


async def test_two_who_feed_at_once(world: World) -> None:
    """A pipe that is full makes one of them wait in the middle of a write."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    world.hub.take_stdin(writer)
    piece = b"x" * 50_000
    async with world.talk(Order("attach", stdin=True)) as one, world.talk(Order("attach", stdin=True)) as two:
        for session in (one, two):
            await session.started()
            for _ in range(3):
                await session.send(piece)
        got = 0
        async with trio.lowlevel.FdStream(reader) as stream:
            with trio.fail_after(2):
                while got < 6 * len(piece):
                    got += len(await stream.receive_some(65536))
        assert await world.alive()
    await world.hub.end_stdin()


async def test_a_killed_supervisor(tmp_path: Path) -> None:
    ours, theirs = trio.socket.socketpair()
    theirs.close()
    async with conversing(trio.SocketStream(ours)) as session:
        with pytest.raises(Internal):
            await session.wait()
    assert await connect(tmp_path / "missing") is None
    assert await connect(tmp_path) is None


async def test_unknown_order_is_named(world: World) -> None:
    async with world.talk(Order("dance")) as session:
        with pytest.raises(Invalid, match="dance"):
            await session.answered()
