"""The bridge, seen from everywhere: real sockets in a machine made of network namespaces.

Each scenario runs in a child that has a fresh network namespace as "the machine", with a neighbour on a "LAN" (another
namespace behind a veth). Nothing outside of these is touched or spoken to.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import trio

from scow.api import Conflict, Endpoint, Exhausted, Exists, NetworkHeld, NetworkRequest, PluginContext, parse_ports
from scow.api.linux import inside_netns, new_netns
from scow.testing.networks import MemoryJournal, NetworkMaker, run
from scow_plugins.bridge import Plugin, _netlink, _sweeper

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("ip"), reason="the program ip (iproute2) makes the test's LAN"),
    pytest.mark.skipif(not shutil.which("nft"), reason="the program nft shows what rules are left"),
]

HOST, NEIGHBOUR = "192.0.2.1", "192.0.2.2"


# The machine --------------------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """The namespace that plays the host, its neighbour on the LAN, and an engine's bridge plugin."""

    directory: Path
    lan: int = -1

    def context(self, instance: str = "t", **settings: Any) -> PluginContext:
        state = self.directory / f"state-{instance}"
        return PluginContext("bridge", state, self.directory / "run", settings, instance=instance, idle=60)

    def plugin(self, instance: str = "t", **settings: Any) -> Plugin:
        return Plugin(self.context(instance, **{"linger": 1, **settings}))

    def on(self, container: str = "c1", publish: str = "", plugin: Plugin | None = None, **rest: Any) -> NetworkHeld:
        ports = tuple(port for text in publish.split() for port in parse_ports(text))
        journal = rest.pop("journal", None) or MemoryJournal()
        asked = NetworkRequest("bridge", container, container, container, journal, ports, **rest)
        held = (plugin or self.plugin()).network(asked)
        assert held is not None
        return held

    def build(self) -> None:
        """Loopback and a LAN: the machine is 192.0.2.1, its neighbour 192.0.2.2 and its gateway for nothing else."""
        _program("ip link set lo up")
        # A new namespace begins with the settings of the first one, which Docker may have made a router.
        _write("/proc/sys/net/ipv4/ip_forward", "0")
        # Neighbour discovery would change the picture in the middle of a test.
        _write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
        self.lan = new_netns()
        _program(f"ip link add lan0 mtu 1400 type veth peer name eth0 netns /proc/{os.getpid()}/fd/{self.lan}")
        _program(f"ip addr add {HOST}/24 dev lan0")
        _program("ip link set lan0 up")
        _program(f"ip route add default via {NEIGHBOUR}")
        with inside_netns(self.lan):
            _program("ip link set lo up")
            _program(f"ip addr add {NEIGHBOUR}/24 dev eth0")
            _program("ip link set eth0 up")
            # What a hostile neighbour would do to reach more than is published.
            _write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")
        _until(lambda: "LOWER_UP" in _program("ip -br link show lan0"))

    @contextmanager
    def serving(self, netns: int | None, port: int, name: str, kind: str = "tcp", address: str = "") -> Iterator[None]:
        """A server that answers everything with its name and the client's address."""
        heard, told = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with inside_netns(netns) if netns is not None else _nowhere():
                    _serve(kind, address, port, name, told)
            finally:
                os._exit(1)
        os.close(told)
        try:
            assert os.read(heard, 1) == b"!", "the server did not start"
            yield
        finally:
            os.close(heard)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@contextmanager
def _nowhere() -> Iterator[None]:
    yield


def _serve(kind: str, address: str, port: int, name: str, told: int) -> None:
    if kind == "tcp":
        with socket.create_server((address, port)) as server:
            os.write(told, b"!")
            while True:
                connection, client = server.accept()
                connection.sendall(f"{name} {client[0]}".encode())
                connection.close()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        os.write(told, b"!")
        while True:
            _, client = server.recvfrom(100)
            server.sendto(f"{name} {client[0]}".encode(), client)


def ask(address: str, port: int, netns: int | None = None, timeout: float = 0.8) -> str:
    """What a TCP server says, or what went wrong in one word."""
    try:
        with (
            inside_netns(netns) if netns is not None else _nowhere(),
            socket.create_connection((address, port), timeout=timeout) as client,
        ):
            return client.recv(100).decode()
    except TimeoutError:
        return "silence"
    except OSError as error:
        return type(error).__name__


def ask_udp(address: str, port: int, netns: int | None = None, client: socket.socket | None = None) -> str:
    """What a UDP server says, or `silence`."""
    with inside_netns(netns) if netns is not None else _nowhere():
        sock = client or socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.settimeout(0.8)
            sock.sendto(b"?", (address, port))
            return sock.recv(100).decode()
        except (TimeoutError, ConnectionRefusedError):
            return "silence"
        finally:
            if client is None:
                sock.close()


def _program(command: str) -> str:
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


def _read(path: str) -> str:
    return Path(path).read_text().strip()


def _until(true: Callable[[], bool], seconds: float = 4) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def _picture() -> str:
    """Everything that a bridge may leave behind: links, addresses, routes, rules, settings."""
    links = sorted(link["ifname"] for link in json.loads(_program("ip -j link")))
    settings = {
        f"{device}/{key}": (Path("/proc/sys/net/ipv4/conf") / device / key).read_text()
        for device in sorted(os.listdir("/proc/sys/net/ipv4/conf"))
        for key in ("forwarding", "route_localnet", "rp_filter")
        if device in ("all", "default", "lo", "lan0")
    }
    ruleset = _program("nft -s list ruleset")
    return f"{links}\n{_program('ip -4 addr')}\n{_program('ip route show table all')}\n{ruleset}\n{settings}"


Scenario = Callable[[Machine], Awaitable[None]]


@pytest.fixture
def play(tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario on a machine of its own, and compare before with after."""

    async def whole(scenario: Scenario) -> None:
        machine = Machine(tmp_path)
        machine.build()
        before = _picture()
        await scenario(machine)
        deadline = time.monotonic() + 4
        while (after := _picture()) != before and time.monotonic() < deadline:  # noqa: ASYNC110
            await trio.sleep(0.05)
        assert after == before

    def start(scenario: Scenario) -> None:
        async def check(_: NetworkMaker) -> None:
            await whole(scenario)

        run(check, NetworkMaker("bridge", Plugin))  # type: ignore[arg-type]

    return start


Play = Callable[[Scenario], None]


def _netns(endpoint: Endpoint) -> int:
    assert endpoint.netns is not None
    return endpoint.netns


def _ip(endpoint: Endpoint) -> str:
    return str(endpoint.addresses[0].ip)


# Scenarios ----------------------------------------------------------------------------------------------------------


def test_what_the_container_sees(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        async with machine.on() as endpoint:
            with inside_netns(_netns(endpoint)):
                (eth0,) = json.loads(_program("ip -j addr show eth0"))
                (default,) = json.loads(_program("ip -j route show default"))
                loopback = _program("ip -br addr show lo")
            assert eth0["address"] == endpoint.mac == "02:42:" + IPv4Address(_ip(endpoint)).packed.hex(":")
            assert eth0["mtu"] == 1400
            assert [info["local"] for info in eth0["addr_info"]] == [_ip(endpoint)]
            assert default["gateway"] == endpoint.gateway
            assert "127.0.0.1/8" in loopback
            assert ask(endpoint.gateway, 1, _netns(endpoint)) == "ConnectionRefusedError"

    play(scenario)


def test_published_everywhere(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        async with machine.on(publish="8080:80 9053:53/udp") as endpoint, machine.on("c2") as other:
            with (
                machine.serving(_netns(endpoint), 80, "web"),
                machine.serving(_netns(endpoint), 53, "dns", "udp"),
            ):
                assert ask("127.0.0.1", 8080) == f"web {endpoint.gateway}"
                assert ask("127.0.0.9", 8080) == f"web {endpoint.gateway}"
                assert ask(HOST, 8080) == f"web {HOST}"
                assert ask(HOST, 8080, machine.lan) == f"web {NEIGHBOUR}", "the client's address is kept"
                assert ask(endpoint.gateway, 8080).startswith("web")
                assert ask(HOST, 8080, _netns(endpoint)) == f"web {endpoint.gateway}", "hairpin to itself"
                assert ask(HOST, 8080, _netns(other)) == f"web {endpoint.gateway}", "hairpin from another"
                assert ask(_ip(endpoint), 80, _netns(other)) == f"web {_ip(other)}"
                assert ask(_ip(endpoint), 80).startswith("web")
                assert ask("localhost", 8080).startswith("web"), "::1 is refused at once, then 127.0.0.1"
                assert ask_udp("127.0.0.1", 9053).startswith("dns")
                assert ask_udp(HOST, 9053).startswith("dns")
                assert ask_udp(HOST, 9053, machine.lan) == f"dns {NEIGHBOUR}"
                assert ask_udp(HOST, 9053, _netns(other)).startswith("dns")

    play(scenario)


def test_published_on_one_address(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        async with machine.on(publish=f"127.0.0.1:8080:80 {HOST}:8081:80") as endpoint, machine.on("c2") as other:
            with machine.serving(_netns(endpoint), 80, "web"):
                assert ask("127.0.0.1", 8080).startswith("web")
                assert ask(HOST, 8080) == "ConnectionRefusedError"
                assert ask(HOST, 8080, machine.lan) == "ConnectionRefusedError"
                assert ask(HOST, 8081, machine.lan).startswith("web")
                assert ask("127.0.0.1", 8081) == "ConnectionRefusedError"
                # moby#45610: a neighbour that sends to 127.0.0.1 by way of us; and a container that does.
                with inside_netns(machine.lan):
                    _program("ip addr del 127.0.0.1/8 dev lo")
                    _program(f"ip route add 127.0.0.0/8 via {HOST} dev eth0 src {NEIGHBOUR}")
                    _program("ip route flush table local 127.0.0.0/8")
                assert ask("127.0.0.1", 8080, machine.lan) == "silence"
                assert ask(endpoint.gateway, 8080, _netns(other)) == "ConnectionRefusedError"

    play(scenario)


def test_a_neighbour_gets_no_further_than_what_is_published(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        _program("ip link add far0 type veth peer name eth1")
        async with machine.on(publish="8080:80") as endpoint:
            with inside_netns(machine.lan):
                _program(f"ip route add default via {HOST}")
            with machine.serving(_netns(endpoint), 80, "web"):
                assert ask(HOST, 8080, machine.lan).startswith("web")
                assert ask(_ip(endpoint), 80, machine.lan) == "silence", "containers aren't reached directly"
        _program("ip link del far0")

    play(scenario)


def test_the_machine_does_not_become_a_router(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        far = new_netns()
        _program(f"ip link add far0 type veth peer name eth0 netns /proc/{os.getpid()}/fd/{far}")
        _program("ip addr add 198.51.100.1/24 dev far0")
        _program("ip link set far0 up")
        with inside_netns(far):
            _program("ip addr add 198.51.100.2/24 dev eth0")
            _program("ip link set eth0 up")
            _program("ip route add default via 198.51.100.1")
        with inside_netns(machine.lan):
            _program(f"ip route add 198.51.100.0/24 via {HOST}")
        forwarding = "/proc/sys/net/ipv4/ip_forward"
        with machine.serving(far, 80, "far"):
            async with machine.on(plugin=machine.plugin(linger=0)) as endpoint:
                assert _read(forwarding) == "0"
                assert ask("198.51.100.2", 80, _netns(endpoint)) == "far 198.51.100.1"
                assert ask("198.51.100.2", 80, machine.lan) == "silence"
            # A machine that is a router stays one.
            _write(forwarding, "1")
            async with machine.on(plugin=machine.plugin("u")) as endpoint:
                assert ask("198.51.100.2", 80, machine.lan) == f"far {NEIGHBOUR}"
            _write(forwarding, "0")
        _program("ip link del far0")
        os.close(far)

    play(scenario)


def test_masquerade_to_the_lan(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        async with machine.on() as endpoint:
            with machine.serving(machine.lan, 80, "lan"), machine.serving(machine.lan, 53, "lan", "udp"):
                assert ask(NEIGHBOUR, 80, _netns(endpoint)) == f"lan {HOST}"
                assert ask_udp(NEIGHBOUR, 53, _netns(endpoint)) == f"lan {HOST}"

    play(scenario)


def test_a_taken_port(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        with socket.create_server(("", 8080)), pytest.raises(Exists, match="port 8080/tcp is already in use"):
            async with machine.on(publish="8080:80"):
                pass
        async with machine.on(publish="8080:80") as endpoint:
            with pytest.raises(Exists, match="8080/tcp"):
                async with machine.on("c2", "8080:81"):
                    pass
            with machine.serving(_netns(endpoint), 80, "first"):
                assert ask("127.0.0.1", 8080).startswith("first")
        # Free again at once.
        async with machine.on("c3", "8080:80") as endpoint:
            with machine.serving(_netns(endpoint), 80, "third"):
                assert ask("127.0.0.1", 8080).startswith("third")

    play(scenario)


def test_an_address_is_used_again_at_once(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin()
        async with machine.on("keeper", plugin=plugin) as keeper:
            wanted = keeper.addresses[0].ip + 7
            for n in range(5):
                async with machine.on(f"c{n}", "8080:80", plugin, ip=wanted) as endpoint:
                    with machine.serving(_netns(endpoint), 80, f"n{n}"):
                        assert ask(str(wanted), 80).startswith(f"n{n}")
                        assert ask(str(wanted), 80, _netns(keeper)).startswith(f"n{n}")
                        assert ask(HOST, 8080, machine.lan).startswith(f"n{n}")

    play(scenario)


def test_a_udp_client_that_never_stops_reaches_the_new_container(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        with inside_netns(machine.lan):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            assert ask_udp(HOST, 9053, client=client) == "silence", "nobody yet, but conntrack remembers"
            for n in range(2):
                async with machine.on(f"c{n}", "9053:53/udp") as endpoint:
                    with machine.serving(_netns(endpoint), 53, f"n{n}", "udp"):
                        assert ask_udp(HOST, 9053, client=client).startswith(f"n{n}")

    play(scenario)


def test_two_thousand_ports(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        begin = time.perf_counter()
        async with machine.on(publish="10000-11999:20000-21999") as endpoint:
            up = time.perf_counter() - begin
            assert len(endpoint.ports) == 2000
            with machine.serving(_netns(endpoint), 21234, "many"):
                assert ask(HOST, 11234, machine.lan).startswith("many")
            begin = time.perf_counter()
        assert up < 1
        assert time.perf_counter() - begin < 1

    play(scenario)


def test_the_first_packet_arrives(play: Play) -> None:
    """TCP would send it again after a second: a port of a bridge that isn't ready yet costs just that."""

    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin()
        with machine.serving(machine.lan, 80, "lan"):
            for n in range(10):
                async with machine.on(f"c{n}", plugin=plugin) as endpoint:
                    begin = time.perf_counter()
                    assert ask(NEIGHBOUR, 80, _netns(endpoint), 3).startswith("lan")
                    assert time.perf_counter() - begin < 0.9

    play(scenario)


def test_killed_then_reclaimed(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        async with machine.on("survivor", "8081:80") as survivor:
            code = (
                "import sys, os, trio; from pathlib import Path\n"
                "from scow.api import *; from scow_plugins.bridge import Plugin\n"
                "from scow.testing.networks import MemoryJournal\n"
                "context = PluginContext('bridge', Path(sys.argv[1]), Path(sys.argv[1]), {}, instance='t')\n"
                "journal = MemoryJournal(watcher=lambda handle: print(handle['veth'], flush=True))\n"
                "asked = NetworkRequest('bridge', 'dead', 'd', 'd', journal, parse_ports('8080:80'))\n"
                "async def main():\n"
                "    async with Plugin(context).network(asked):\n"
                "        print('inside', flush=True); await trio.sleep_forever()\n"
                "trio.run(main)"
            )
            child = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-c", code, str(machine.directory / "state-t")], stdout=subprocess.PIPE, text=True
            )
            assert child.stdout is not None
            with child:
                veth = child.stdout.readline().strip()
                assert child.stdout.readline() == "inside\n"
                child.kill()
            assert "8080" in _program("nft list map ip scow-t ports")
            # A new container may have the dead one's port even before anybody reclaims.
            async with machine.on("heir", "8080:80") as heir:
                for _ in range(2):
                    machine.plugin().reclaim({"veth": veth, "container": "dead"})
                with machine.serving(_netns(heir), 80, "heir"), machine.serving(_netns(survivor), 80, "survivor"):
                    assert ask("127.0.0.1", 8080).startswith("heir")
                    assert ask("127.0.0.1", 8081).startswith("survivor")
            assert veth not in _program("ip link")
            assert "8080" not in _program("nft list map ip scow-t ports")

    play(scenario)


#: A firewall that the bridge has to open for itself: Docker's, in short.
_DOCKER = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; chain DOCKER { }; }"


@pytest.mark.parametrize("rules", ["", _DOCKER], ids=["alone", "beside docker"])
@pytest.mark.parametrize("how", ["killed", "refused"])
def test_at_every_request_to_the_kernel(play: Play, how: str, rules: str) -> None:
    """A supervisor that dies before its n-th netlink request, or whose n-th request fails, for every n."""

    async def scenario(machine: Machine) -> None:
        reached = 0
        if rules:
            _program(f"nft {rules}")
        for n in range(1, 90):
            heard, told = os.pipe()
            child = os.fork()
            if child == 0:
                _spoilt(machine, n, how, told)
            os.close(told)
            status = os.waitpid(child, 0)[1]  # noqa: ASYNC222
            handles = os.read(heard, 1000).decode().split()
            os.close(heard)
            for veth in handles:
                machine.plugin().reclaim({"veth": veth, "container": "dead"})
            assert "veth" not in _program("ip -br link")
            with machine.plugin()._network._store.locked() as state:
                assert not state.leases
            assert "scow:" not in _program("nft list ruleset")
            reached = n
            if os.waitstatus_to_exitcode(status) == 0:
                break
        assert reached > 10, "there are that many requests"
        machine.plugin()._network.sweep(0)
        if rules:
            _program("nft delete table ip filter")

    play(scenario)


def _spoilt(machine: Machine, n: int, how: str, told: int) -> None:
    """Connect and disconnect in this child, spoil request number `n`; exit code 0: there was none of that number."""
    count = 0
    real = _netlink.Netlink._transmit

    def transmit(self: Any, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == n and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if count == n:
            raise _netlink.NetlinkError(errno.ENOMEM, "no memory, says the test")
        return real(self, *arguments)

    def cross() -> None:
        # The child was forked out of a trio program; nothing in bridge awaits, so a generator's step does it.
        held = machine.on("dead", "8080:80 9053:53/udp", machine.plugin(linger=0), journal=journal)
        entering = held.__aenter__()
        with pytest.raises(StopIteration):
            entering.send(None)  # type: ignore[attr-defined]
        leaving = held.__aexit__(None, None, None)
        with pytest.raises(StopIteration):
            leaving.send(None)  # type: ignore[attr-defined]

    journal = MemoryJournal(watcher=lambda handle: os.write(told, f"{handle['veth']}\n".encode()) and None)
    try:
        _netlink.Netlink._transmit = transmit  # type: ignore[method-assign]
        cross()
        os._exit(0)
    except BaseException:
        os._exit(1)


def test_flushed_rules_come_back(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        async with machine.on(publish="8080:80") as endpoint:
            for command in ("nft flush ruleset", "nft flush table ip scow-t", "nft flush map ip scow-t ports"):
                _program(command)
                async with machine.on("c2", "8081:80"):
                    with machine.serving(_netns(endpoint), 80, "web"):
                        expected = "silence" if "table ip" in command or "map" in command else "web"
                        assert ask("127.0.0.1", 8080).startswith(("web", expected))
            _program("nft flush ruleset")

    play(scenario)


def test_a_subnet_that_meets_nothing(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        settings = {"pools": ["10.5.0.0/22"], "prefix": 24, "linger": 0}
        _program("ip route add 10.5.0.0/24 dev lan0")
        async with machine.on(plugin=machine.plugin(**settings)) as first:
            used = first.addresses[0].network
            assert str(used) != "10.5.0.0/24"
        # Remembered while it is free, chosen anew when it isn't.
        async with machine.on(plugin=machine.plugin(**settings)) as second:
            assert second.addresses[0].network == used
        _program(f"ip route add {used} dev lan0")
        async with machine.on(plugin=machine.plugin(**settings)) as third:
            assert third.addresses[0].network not in (used, first.addresses[0].network)
        with pytest.raises(Conflict, match=r"10\.5\.0\.0/16 overlaps"):
            async with machine.on(plugin=machine.plugin(subnet="10.5.0.0/16", linger=0)):
                pass
        _program(f"ip route del {used}")
        _program("ip route del 10.5.0.0/24")

    play(scenario)


def test_no_address_is_left(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin(subnet="10.5.0.0/29")
        async with trio.open_nursery() as nursery:
            for n in range(5):
                await nursery.start(_stay, machine.on(f"c{n}", plugin=plugin))
            with pytest.raises(Exhausted, match=r"no free address in 10\.5\.0\.0/29"):
                async with machine.on("one too many", plugin=plugin):
                    pass
            nursery.cancel_scope.cancel()

    play(scenario)


async def _stay(held: NetworkHeld, task_status: trio.TaskStatus[Endpoint]) -> None:
    async with held as endpoint:
        task_status.started(endpoint)
        await trio.sleep_forever()


def test_two_engines_do_not_meet(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        one, two = machine.plugin("one", linger=0), machine.plugin("two", linger=0)
        forwarding = "/proc/sys/net/ipv4/conf/lan0/forwarding"
        async with machine.on("b", "8081:80", two) as second:
            async with machine.on("a", "8080:80", one) as first:
                assert not first.addresses[0].network.overlaps(second.addresses[0].network)
                with machine.serving(_netns(first), 80, "one"), machine.serving(_netns(second), 80, "two"):
                    assert ask(HOST, 8081, _netns(first)).startswith("two"), "by what is published"
                    assert ask(_ip(second), 80, _netns(first)) == "silence", "and not otherwise"
                    assert ask(HOST, 8080, machine.lan).startswith("one")
            assert _read(forwarding) == "1", "the other engine still needs it"
            with machine.serving(_netns(second), 80, "two"):
                assert ask(HOST, 8081, machine.lan).startswith("two")
        assert _read(forwarding) == "0"

    play(scenario)


def test_somebody_elses_device_is_left_alone(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        _program("ip link add scow-t type bridge")
        with pytest.raises(Conflict, match="scow-t") as caught:
            async with machine.on():
                pass
        assert "plugins.bridge.name" in (caught.value.hint or "")
        _program("ip link del scow-t")

    play(scenario)


def test_half_a_bridge_is_made_anew(play: Play) -> None:
    """What a kill in the middle of its creation leaves: a device without address."""

    async def scenario(machine: Machine) -> None:
        _program("ip link add scow-t type bridge")
        subprocess.run(["ip", "link", "set", "scow-t", "up", "alias", "scow unfinished"], check=True)  # noqa: ASYNC221
        async with machine.on(publish="8080:80") as endpoint:
            with machine.serving(_netns(endpoint), 80, "web"):
                assert ask(HOST, 8080, machine.lan).startswith("web")

    play(scenario)


def test_a_bridge_that_somebody_deleted(play: Play) -> None:
    """The next container's start brings it back, and running containers with it."""

    async def scenario(machine: Machine) -> None:
        async with machine.on(publish="8080:80") as endpoint:
            _program("ip link del scow-t")
            async with machine.on("c2"):
                with machine.serving(_netns(endpoint), 80, "web"):
                    assert ask(HOST, 8080, machine.lan, 3).startswith("web")

    play(scenario)


def test_probing_leaves_nothing(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        assert machine.plugin().probe() is None
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            answer = machine.plugin().probe()
            os._exit(0 if answer is not None and "root" in answer.reason else 1)
        assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222

    play(scenario)


def test_many_at_once(play: Play) -> None:
    """Commands that start and end at the same time: one bridge, addresses that differ, nothing left."""

    async def scenario(machine: Machine) -> None:
        code = (
            "import sys, trio; from pathlib import Path\n"
            "from scow.api import *; from scow_plugins.bridge import Plugin\n"
            "from scow.testing.networks import MemoryJournal\n"
            "place, settings = Path(sys.argv[1]), {'linger': 0.01}\n"
            "context = PluginContext('bridge', place, place, settings, instance='t', idle=1)\n"
            "asked = NetworkRequest('bridge', sys.argv[2], 'd', 'd', MemoryJournal(), parse_ports('80'))\n"
            "async def main():\n"
            "    for _ in range(8):\n"
            "        async with Plugin(context).network(asked) as endpoint:\n"
            "            print(endpoint.addresses[0].ip, flush=True); await trio.sleep(0.01)\n"
            "trio.run(main)"
        )
        command = [sys.executable, "-c", code, str(machine.directory / "state-t")]
        children = [
            subprocess.Popen([*command, f"c{n}"], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
            for n in range(6)
        ]
        outputs = [child.communicate(timeout=30)[0].split() for child in children]
        assert [child.returncode for child in children] == [0] * 6
        assert [len(output) for output in outputs] == [8] * 6

    play(scenario)


def test_a_bridge_that_is_kept_for_long_costs_little(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits to remove it is a bare interpreter; a container that comes meanwhile has the same bridge."""
    monkeypatch.setattr(_sweeper, "_SHORT", 0.1)

    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin(linger=0.7)
        async with machine.on("one", plugin=plugin):
            index = socket.if_nametoindex("scow-t")
        (waiting,) = plugin._network.sweepers
        await trio.sleep(0.2)
        assert "-I -S" in _read(f"/proc/{waiting}/cmdline").replace("\0", " ")
        assert set(os.listdir(f"/proc/{waiting}/fd")) >= {"0", "1", "2", "3", "4"}
        async with machine.on("two", plugin=plugin):
            assert socket.if_nametoindex("scow-t") == index
            await trio.to_thread.run_sync(os.waitpid, waiting, 0)  # it saw that somebody is there again
        await trio.to_thread.run_sync(os.waitpid, plugin._network.sweepers.pop(), 0)
        assert "scow-t" not in {name for _, name in socket.if_nameindex()}

    play(scenario)


def test_set_up_and_take_down_are_quick(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin()
        ups, downs = [], []
        async with machine.on("keeper", plugin=plugin):
            for n in range(15):
                begin = time.perf_counter()
                async with machine.on(f"c{n}", "8080:80", plugin):
                    ups.append(time.perf_counter() - begin)
                    begin = time.perf_counter()
                downs.append(time.perf_counter() - begin)
        # Generous: others use this machine, too. Typical are 3 ms and 0.7 ms.
        assert sorted(ups)[3] < 0.012, ups
        assert sorted(downs)[3] < 0.006, downs

    play(scenario)


def test_any_free_port_of_a_range(play: Play) -> None:
    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin()
        ports = parse_ports("28090-28091:80")
        async with (
            machine.on("one", "28090-28091:80", plugin) as one,
            machine.on("two", "28090-28091:80", plugin) as two,
        ):
            assert [(port.host_port, port.host_last) for end in (one, two) for port in end.ports] == [
                (28090, 0),
                (28091, 0),
            ]
            with pytest.raises(Exists, match="no port of 28090-28091/tcp is free"):
                async with machine.on("three", "28090-28091:80", plugin):
                    pass
        assert ports[0].host == "28090-28091"

    play(scenario)


def test_a_bridge_goes_when_the_package_has_gone(play: Play, tmp_path: Path) -> None:
    """pip takes scow away, or another one's place, while somebody sleeps who is going to remove its bridge."""
    package = tmp_path / "package"
    package.mkdir()
    for module, above in (("scow", 0), ("scow_plugins.bridge", 1)):  # scow_plugins is a namespace of several places
        source = Path(str(importlib.import_module(module).__file__)).parents[above]
        shutil.copytree(source, package / source.name, ignore=shutil.ignore_patterns("__pycache__"))

    async def scenario(machine: Machine) -> None:
        code = (
            "import sys, trio; from pathlib import Path\n"
            "sys.path.insert(0, sys.argv[2])\n"
            "from scow.api import *; from scow_plugins.bridge import Plugin, _sweeper\n"
            "from scow.testing.networks import MemoryJournal\n"
            "_sweeper._SHORT = 0.1\n"
            "place = Path(sys.argv[1])\n"
            "plugin = Plugin(PluginContext('bridge', place, place, {'linger': 1}, instance='t', idle=1))\n"
            "asked = NetworkRequest('bridge', 'c1', 'd', 'd', MemoryJournal())\n"
            "async def main():\n"
            "    async with plugin.network(asked):\n"
            "        print(_sweeper.__file__)\n"
            "trio.run(main)\n"
            "print(*plugin._network.sweepers)"
        )
        command = [sys.executable, "-c", code, str(machine.directory / "state-t"), str(package)]
        done = await trio.to_thread.run_sync(
            lambda: subprocess.run(command, capture_output=True, text=True, check=True)
        )
        file, sweeper = done.stdout.split()
        assert file.startswith(str(package))
        while b"Kept" not in Path(f"/proc/{sweeper}/cmdline").read_bytes():  # noqa: ASYNC110, ASYNC240
            await trio.sleep(0.01)
        memory = os.stat(f"/proc/{sweeper}/fd/4").st_size
        assert memory < 1 << 20
        shutil.rmtree(package)
        assert "scow-t" in {name for _, name in socket.if_nameindex()}
        with trio.fail_after(10):
            while "scow-t" in {name for _, name in socket.if_nameindex()}:  # noqa: ASYNC110
                await trio.sleep(0.05)

    play(scenario)
