"""What every network driver must do, as plain functions over a maker; free of pytest, so that any runner will do.

    for check in NETWORK_CHECKS:
        run(check, maker)

A maker gives a fresh plugin of the driver under test, always for the same engine: two plugins that it made share
their state, as two commands would. Checks need root where the driver does, and processes without other threads.
"""

from __future__ import annotations

import inspect
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn, Protocol

import trio

from scow.errors import Exists, Invalid, Unsupported
from scow.hookspecs import NetworkHeld
from scow.model.network import NetworkRequest, PortMapping
from scow.sys.namespaces import Namespace, inside_netns, unshare

_CONF: Final = Path("/proc/sys/net/ipv4/conf")


class NetworkPlugin(Protocol):
    """A plugin that claims network requests; one that journals also has `reclaim`."""

    def network(self, request: NetworkRequest) -> NetworkHeld | None:
        """See `scow.hookspecs.network`."""
        ...


@dataclass(frozen=True, slots=True)
class NetworkMaker:
    """The driver under test: its name, and how to make a plugin.

    `settle` is how many seconds after the last endpoint left something may still be on its way out.
    """

    driver: str
    make: Callable[[], NetworkPlugin]
    settle: float = 4.0


@dataclass(slots=True)
class MemoryJournal:
    """A journal that remembers; `held` are the handles not yet released."""

    held: dict[int, dict[str, str | int]] = field(default_factory=dict)
    count: int = 0
    #: Called with each handle after it was written down.
    watcher: Callable[[dict[str, str | int]], None] | None = None

    def hold(self, **handle: str | int) -> int:
        """See `scow.model.journal.Journal`."""
        self.count += 1
        self.held[self.count] = handle
        if self.watcher is not None:
            self.watcher(handle)
        return self.count

    def release(self, entry: int) -> None:
        """See `scow.model.journal.Journal`."""
        del self.held[entry]


Check = Callable[[NetworkMaker], Awaitable[None]] | Callable[[NetworkMaker], None]


def run(check: Check, maker: NetworkMaker) -> None:
    """Run one check to its end, in a child process that has a network namespace of its own as "the machine".

    So it neither sees nor touches what else this machine does. Raises AssertionError with the child's traceback.
    """
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _run_alone(check, maker, told)
    os.close(told)
    with os.fdopen(heard, "rb") as report:
        # Not until the end of the pipe: a process of the driver's may live on and hold it.
        os.waitpid(child, 0)
        os.set_blocking(report.fileno(), False)
        said = report.read() or b"the check died"
    if said != b"ok":
        raise AssertionError(said.decode(errors="replace"))


def _run_alone(check: Check, maker: NetworkMaker, told: int) -> NoReturn:
    said = "ok"
    try:
        unshare(Namespace.NET)
        if inspect.iscoroutinefunction(check):
            trio.run(check, maker)
        else:
            check(maker)
    except BaseException:  # noqa: BLE001 - whatever it is, the parent raises it
        said = traceback.format_exc()
    os.write(told, said.encode()[-60_000:])
    os._exit(0)


def request(maker: NetworkMaker, container: str = "c1", ports: tuple[PortMapping, ...] = ()) -> NetworkRequest:
    """A request for the driver under test."""
    return NetworkRequest(maker.driver, container, container, container, MemoryJournal(), ports)


# Checks -------------------------------------------------------------------------------------------------------------


async def check_declines_what_is_not_its_own(maker: NetworkMaker) -> None:
    """A request for another driver is answered with None."""
    other = NetworkRequest("another-driver", "c1", "c1", "c1", MemoryJournal())
    assert maker.make().network(other) is None


async def check_claim_alone_does_nothing(maker: NetworkMaker) -> None:
    """A claim that is never entered has touched nothing: no link, no descriptor, no journal entry."""
    plugin = maker.make()
    before = _machine()
    asked = request(maker)
    held = plugin.network(asked)
    assert held is not None
    assert _journal(asked).count == 0
    assert _machine() == before
    del held


async def check_endpoint_is_complete(maker: NetworkMaker) -> None:
    """The endpoint names its driver; a namespace of its own is a new one, close-on-exec, with loopback up."""
    async with _enter(maker, request(maker)) as endpoint:
        assert endpoint.driver == maker.driver
        if endpoint.netns is None:
            return
        assert not os.get_inheritable(endpoint.netns)
        assert os.fstat(endpoint.netns).st_ino != os.stat("/proc/self/ns/net").st_ino
        with inside_netns(endpoint.netns):
            _loopback_works()
            if endpoint.interface:
                assert endpoint.interface in {name for _, name in socket.if_nameindex()}


async def check_two_containers_are_apart(maker: NetworkMaker) -> None:
    """Two endpoints at a time have two namespaces and no address in common; one's end doesn't touch the other."""
    async with _enter(maker, request(maker, "c1")) as first:
        async with _enter(maker, request(maker, "c2")) as second:
            if first.netns is not None and second.netns is not None:
                assert os.fstat(first.netns).st_ino != os.fstat(second.netns).st_ino
            assert not {a.ip for a in first.addresses} & {a.ip for a in second.addresses}
        if first.netns is not None:
            with inside_netns(first.netns):
                _loopback_works()


async def check_leaving_undoes_everything(maker: NetworkMaker) -> None:
    """After the body the machine is as before and the journal is empty; a moment for the kernel is allowed."""
    before = _machine()
    asked = request(maker)
    async with _enter(maker, asked):
        pass
    assert not _journal(asked).held
    await _same_again(before, maker)


async def check_a_failing_body_undoes_everything(maker: NetworkMaker) -> None:
    """An error in the body comes out as it is, and nothing is left."""
    before = _machine()
    asked = request(maker)
    try:
        async with _enter(maker, asked):
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError("the body's error was swallowed")
    assert not _journal(asked).held
    await _same_again(before, maker)


async def check_cancellation_undoes_everything(maker: NetworkMaker) -> None:
    """Cancelled before entering, while inside, and at each step of leaving: nothing is left."""
    before = _machine()
    asked = request(maker)
    for early in (True, False):
        with trio.CancelScope() as scope:
            if early:
                scope.cancel()
            async with _enter(maker, asked):
                scope.cancel()
                await trio.sleep_forever()
        assert not _journal(asked).held
    await _same_again(before, maker)


async def check_a_container_comes_back(maker: NetworkMaker) -> None:
    """The same container may be connected again at once, several times."""
    plugin = maker.make()
    for _ in range(3):
        async with _enter(maker, request(maker), plugin) as endpoint:
            if endpoint.netns is not None:
                with inside_netns(endpoint.netns):
                    _loopback_works()


async def check_published_ports_are_real_or_refused(maker: NetworkMaker) -> None:
    """A port wish is fulfilled (with the port really taken), discarded visibly, or refused; never half of it."""
    asked = request(maker, ports=(PortMapping(80), PortMapping(53, protocol="udp")))
    try:
        async with _enter(maker, asked) as endpoint:
            assert len(endpoint.ports) in (0, 2)
            for given, wanted in zip(endpoint.ports, asked.ports, strict=False):
                assert (given.container_port, given.protocol) == (wanted.container_port, wanted.protocol)
                assert 0 < given.host_port < 65536
    except (Invalid, Unsupported) as error:
        if not error.hint:
            raise AssertionError("a refusal says the way out") from error
    assert not _journal(asked).held


async def check_a_port_has_one_owner(maker: NetworkMaker) -> None:
    """A second container that wants the same port is refused with Exists, and the first keeps it."""
    try:
        async with _enter(maker, request(maker, "c1", (PortMapping(80),))) as first:
            for taken in first.ports:
                second = request(maker, "c2", (taken,))
                said = ""
                try:
                    async with _enter(maker, second):
                        pass
                except Exists as error:
                    said = error.message
                assert str(taken.host_port) in said, "two containers have the same port"
                assert not _journal(second).held
    except (Invalid, Unsupported):
        return


def check_reclaim_after_a_kill(maker: NetworkMaker) -> None:
    """A supervisor killed while connected: `reclaim`, called twice with each handle, leaves nothing."""
    before = _machine()
    handles = _handles_of_a_killed_one(maker)
    _reclaim_all(maker, handles)
    trio.run(_same_again, before, maker)


def check_reclaim_after_a_kill_at_the_journal(maker: NetworkMaker) -> None:
    """A supervisor killed right after it wrote a handle down, when nothing is there yet: `reclaim` doesn't mind."""
    before = _machine()
    handles = _handles_of_a_killed_one(maker, at_hold=True)
    _reclaim_all(maker, handles)
    trio.run(_same_again, before, maker)


NETWORK_CHECKS: tuple[Check, ...] = tuple(
    value for name, value in sorted(globals().items()) if name.startswith("check_")
)


# Helpers ------------------------------------------------------------------------------------------------------------


def _enter(maker: NetworkMaker, asked: NetworkRequest, plugin: NetworkPlugin | None = None) -> NetworkHeld:
    held = (plugin or maker.make()).network(asked)
    assert held is not None, f"{maker.driver} declines its own request"
    return held


def _journal(asked: NetworkRequest) -> MemoryJournal:
    assert isinstance(asked.journal, MemoryJournal)
    return asked.journal


def _machine() -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """What a network driver could leave behind, as far as one sees it without other programs."""
    settings = []
    for device in sorted(os.listdir(_CONF)):
        try:
            settings.append((device, (_CONF / device / "forwarding").read_text().strip()))
        except OSError:
            # A device that has just gone.
            continue
    return frozenset(name for _, name in socket.if_nameindex()), tuple(settings)


async def _same_again(before: object, maker: NetworkMaker) -> None:
    deadline = time.monotonic() + maker.settle
    while _machine() != before and time.monotonic() < deadline:  # noqa: ASYNC110 - the kernel sends no event
        await trio.sleep(0.05)
    assert _machine() == before, f"left behind: {_machine()} instead of {before}"


def _loopback_works() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=2) as client,
    ):
        server.accept()[0].close()
        assert client.recv(1) == b""


def _handles_of_a_killed_one(maker: NetworkMaker, *, at_hold: bool = False) -> list[dict[str, str | int]]:
    """Connect in a child, kill it with SIGKILL, give the handles that it had written down."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(heard)
            _be_killed(maker, told, at_hold)
        finally:
            os._exit(1)
    os.close(told)
    try:
        # Either the child says "inside", or it has killed itself and the pipe ends.
        select.select([heard], [], [], 20)
        written = b""
        while b"inside" not in written and (chunk := os.read(heard, 65536)):
            written += chunk
    finally:
        os.close(heard)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    handles = []
    for line in written.decode().splitlines():
        if line != "inside":
            parts = [part.split("=", 2) for part in line.split("\t")]
            handles.append({key: int(value) if kind == "int" else value for key, kind, value in parts})
    return handles


def _be_killed(maker: NetworkMaker, told: int, at_hold: bool) -> None:
    asked = request(maker)

    def write_down(handle: dict[str, str | int]) -> None:
        line = "\t".join(f"{key}={type(value).__name__}={value}" for key, value in handle.items())
        os.write(told, line.encode() + b"\n")
        if at_hold:
            os.kill(os.getpid(), signal.SIGKILL)

    _journal(asked).watcher = write_down

    async def stay() -> None:
        async with _enter(maker, asked):
            os.write(told, b"inside\n")
            await trio.sleep_forever()

    trio.run(stay)


def _reclaim_all(maker: NetworkMaker, handles: list[dict[str, str | int]]) -> None:
    plugin = maker.make()
    for _ in range(2):
        for handle in handles:
            plugin.reclaim(handle)  # type: ignore[attr-defined]
