"""The bridge beside other people's firewalls: rule sets as Docker, Podman, firewalld and administrators write them.

Each in a machine of network namespaces, as in test_network_bridge; tests/scenarios/test_docker.py has the real Docker.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from tests.conformance.test_network_bridge import (
    HOST,
    NEIGHBOUR,
    Machine,
    Play,
    _ip,
    _netns,
    _program,
    _until,
    _write,
    ask,
    ask_udp,
    play,  # noqa: F401 - a fixture
)

from scow.api import Endpoint
from scow.api.linux import inside_netns, new_netns
from scow_plugins.bridge import _netlink, _nft

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("iptables-nft"), reason="the program iptables-nft writes other people's rules"),
    pytest.mark.skipif(not shutil.which("ip"), reason="the program ip (iproute2) makes the test's LAN"),
    pytest.mark.skipif(not shutil.which("nft"), reason="the program nft shows what rules are left"),
]

#: As `iptables-nft -S` shows them.
OURS = (
    '-A FORWARD -i scow-t -m comment --comment "scow: scow-t" -j ACCEPT',
    '-A FORWARD -o scow-t -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment "scow: scow-t" -j ACCEPT',
    '-A FORWARD -o scow-t -m conntrack --ctstate DNAT -m comment --comment "scow: scow-t" -j ACCEPT',
)

DOCKER = """*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 81 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8181 -j DNAT --to-destination 172.17.0.2:81
COMMIT
"""

#: Of firewalld 2.0, with eth0 in the zone `public`, whose target is the default one.
FIREWALLD = """
table inet firewalld {
    chain filter_FORWARD { type filter hook forward priority filter + 10; policy accept;
        ct state { established, related } accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_FORWARD_POLICIES
        reject with icmpx admin-prohibited
    }
    chain filter_FORWARD_POLICIES {
        iifname "lan0" oifname "lan0" jump filter_FWD_public
        iifname "lan0" jump filter_FWD_public
        jump filter_FWD_public
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_public {
        jump filter_FWD_public_deny
        jump filter_FWD_public_allow
        reject with icmpx admin-prohibited
    }
    chain filter_FWD_public_deny {
    }
    chain filter_FWD_public_allow {
        tcp dport 9999 accept
    }
}
"""

#: netavark with its nftables driver; Podman never sets a policy, it drops what its own isolated networks shouldn't see.
NETAVARK = """
table inet netavark {
    chain FORWARD { type filter hook forward priority filter; policy accept;
        ct state invalid drop
        jump NETAVARK-ISOLATION-1
        ip daddr 10.88.0.0/16 ct state established,related accept
        ip saddr 10.88.0.0/16 accept
    }
    chain NETAVARK-ISOLATION-1 {
        iifname "podman1" oifname != "podman1" jump NETAVARK-ISOLATION-2
    }
    chain NETAVARK-ISOLATION-2 {
        oifname "podman1" drop
    }
}
"""


CALLS = "/proc/sys/net/bridge/bridge-nf-call-iptables"
HAS_CALLS = os.path.exists(CALLS)


def restore(rules: str, program: str = "iptables-nft-restore") -> None:
    subprocess.run([program], input=rules, text=True, check=True)


def nft(rules: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)


def iptables(*words: str) -> None:
    subprocess.run(["iptables-nft", *words], check=True)


def listed() -> str:
    """`iptables -S`, which must not stumble over anything."""
    done = subprocess.run(["iptables-nft", "-S"], capture_output=True, text=True, check=True)
    assert "incompatible" not in done.stdout + done.stderr
    return done.stdout


@contextmanager
def docker_container(machine: Machine) -> Iterator[int]:
    """A bridge and a container as Docker makes them."""
    _program("ip link add docker0 type bridge")
    _program("ip addr add 172.17.0.1/16 dev docker0")
    _program("ip link set docker0 up")
    _write("/proc/sys/net/ipv4/ip_forward", "1")
    netns = new_netns()
    _program(f"ip link add dock0 master docker0 type veth peer name eth0 netns /proc/{os.getpid()}/fd/{netns}")
    _program("ip link set dock0 up")
    with inside_netns(netns):
        _program("ip link set lo up")
        _program("ip addr add 172.17.0.2/16 dev eth0")
        _program("ip link set eth0 up")
        _program("ip route add default via 172.17.0.1")
    with machine.serving(netns, 80, "inner"), machine.serving(netns, 81, "docker"):
        _until(lambda: ask("172.17.0.2", 80).startswith("inner"))
        yield netns
    _program("ip link del docker0")
    os.close(netns)
    _program("nft flush ruleset")
    _write("/proc/sys/net/ipv4/ip_forward", "0")


def reaches(machine: Machine, endpoint: Endpoint, other: Endpoint | None = None) -> None:
    """Outside by TCP and UDP, in by a published port and no other, and among containers."""
    netns = _netns(endpoint)
    with (
        machine.serving(machine.lan, 80, "lan"),
        machine.serving(machine.lan, 53, "lan", "udp"),
        machine.serving(netns, 80, "web"),
    ):
        assert ask(NEIGHBOUR, 80, netns) == f"lan {HOST}"
        assert ask_udp(NEIGHBOUR, 53, netns) == f"lan {HOST}"
        assert ask(HOST, 8080, machine.lan) == f"web {NEIGHBOUR}"
        assert ask(HOST, 80, machine.lan) == "ConnectionRefusedError"
        with inside_netns(machine.lan):
            _program(f"ip route add {endpoint.addresses[0].network} via {HOST}")
        assert ask(_ip(endpoint), 80, machine.lan, 0.3) == "silence"
        with inside_netns(machine.lan):
            _program(f"ip route del {endpoint.addresses[0].network}")
        if other is not None:
            assert ask(_ip(endpoint), 80, _netns(other)) == f"web {_ip(other)}"
            assert ask(HOST, 8080, _netns(other)) == f"web {endpoint.gateway}"


@pytest.mark.parametrize("bridge_calls", ["0", "1"])
def test_beside_docker(play: Play, bridge_calls: str) -> None:  # noqa: F811 - the fixture
    async def scenario(machine: Machine) -> None:
        with docker_container(machine) as dock:
            restore(DOCKER)
            if HAS_CALLS:
                _write(CALLS, bridge_calls)
            before = listed()
            plugin = machine.plugin(linger=0)
            async with machine.on(publish="8080:80", plugin=plugin) as endpoint, machine.on("c2", plugin=plugin) as two:
                reaches(machine, endpoint, two)
                assert listed().splitlines() == [*_until_docker(before), *OURS, *_from_docker(before)]
                assert not plugin.warnings(endpoint.ports)
                # What Docker's containers don't publish stays theirs.
                assert ask("172.17.0.2", 80, _netns(endpoint), 0.3) == "silence"
                assert ask(HOST, 8181, _netns(endpoint)).startswith("docker")
                with machine.serving(machine.lan, 80, "lan"), machine.serving(_netns(two), 80, "two"):
                    assert ask(_ip(two), 80, dock, 0.3) == "silence"
                    assert ask(HOST, 8181, machine.lan).startswith("docker")
                    with inside_netns(machine.lan):
                        _program(f"ip route add 172.17.0.0/16 via {HOST}")
                    assert ask("172.17.0.2", 80, machine.lan, 0.3) == "silence"
                    assert ask(NEIGHBOUR, 80, dock).startswith("lan")
                    with inside_netns(machine.lan):
                        _program("ip route del 172.17.0.0/16")
            assert listed() == before

    play(scenario)


def _until_docker(rules: str) -> list[str]:
    """The lines of `iptables -S` up to the last one of FORWARD."""
    lines = rules.splitlines()
    return lines[: 1 + max(n for n, line in enumerate(lines) if line.startswith("-A FORWARD"))]


def _from_docker(rules: str) -> list[str]:
    return rules.splitlines()[len(_until_docker(rules)) :]


def test_docker_comes_later_and_is_flushed(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin(linger=0)
        async with machine.on(publish="8080:80", plugin=plugin) as endpoint:
            for disturb in (
                lambda: restore(DOCKER),
                lambda: _program("iptables-nft -F FORWARD"),
                lambda: nft("delete table ip filter"),
                lambda: restore(DOCKER),
            ):
                disturb()
                dropped = "-P FORWARD DROP" in listed()
                with machine.serving(machine.lan, 80, "lan"):
                    heard = ask(NEIGHBOUR, 80, _netns(endpoint), 0.3)
                assert heard == ("silence" if dropped else f"lan {HOST}"), "until the next container starts"
                async with machine.on("c2", plugin=plugin) as two:
                    reaches(machine, endpoint, two)
                    assert all(listed().count(line) == dropped for line in OURS)
        assert "scow" not in listed()
        _program("nft flush ruleset")

    play(scenario)


def test_beside_firewalld(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        nft(FIREWALLD)
        plugin = machine.plugin(linger=0)
        async with machine.on(publish="8080:80", plugin=plugin) as endpoint, machine.on("c2", plugin=plugin) as two:
            reaches(machine, endpoint, two)
            rules = _program("nft list chain inet firewalld filter_FORWARD")
            place = rules.index('comment "scow: scow-t"')
            assert rules.index("ct state invalid drop") < place < rules.index("jump filter_FORWARD_POLICIES")
            # A reload makes all of it anew.
            nft("delete table inet firewalld\n" + FIREWALLD)
            async with machine.on("c3", plugin=plugin):
                reaches(machine, endpoint, two)
        assert "scow" not in _program("nft list ruleset")
        _program("nft flush ruleset")

    play(scenario)


def test_beside_podman(play: Play) -> None:  # noqa: F811
    """Nothing of Podman's is in our way; if one day a chain of its drops more, ours come before it."""

    async def scenario(machine: Machine) -> None:
        nft(NETAVARK)
        plugin = machine.plugin(linger=0)
        async with machine.on(publish="8080:80", plugin=plugin) as endpoint, machine.on("c2", plugin=plugin) as two:
            reaches(machine, endpoint, two)
            assert "scow:" not in _program("nft list table inet netavark")
            nft("add rule inet netavark NETAVARK-ISOLATION-2 drop")
            nft("add rule inet netavark FORWARD jump NETAVARK-ISOLATION-2")
            async with machine.on("c3", plugin=plugin):
                reaches(machine, endpoint, two)
        assert "scow" not in _program("nft list ruleset")
        _program("nft flush ruleset")
        chain = "NETAVARK_FORWARD"
        restore(
            f"*filter\n:FORWARD ACCEPT\n:{chain} -\n-A FORWARD -j {chain}\n-A {chain} ! -i podman0 -j DROP\nCOMMIT\n"
        )
        async with machine.on(publish="8080:80", plugin=plugin) as endpoint, machine.on("c2", plugin=plugin) as two:
            reaches(machine, endpoint, two)
        assert "scow" not in listed()
        _program("nft flush ruleset")

    play(scenario)


def _iptables(*rules: str) -> Callable[[], None]:
    return lambda: restore("*filter\n:FORWARD DROP\n" + "\n".join(rules) + "\nCOMMIT\n")


ADMINISTRATORS = [
    (
        lambda: nft("table inet mine { chain forward { type filter hook forward priority 5; policy drop; }; }"),
        "packets from containers to the outside are dropped by the policy of chain forward in table inet mine",
    ),
    (
        lambda: nft(
            "table ip filter { chain deep { counter drop; }; chain FORWARD { type filter hook forward priority 0;"
            'ct state { established, related } accept; iifname { "lan0", "lan1" } accept; goto deep; }; }'
        ),
        "dropped by rule 1 of chain deep in table ip filter",
    ),
    (_iptables("-A FORWARD -p icmp -j ACCEPT"), "dropped by the policy of chain FORWARD in table ip filter"),
    (
        _iptables(":DOCKER-USER - [0:0]", "-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -o lan0 -j REJECT"),
        "dropped by rule 1 of chain DOCKER-USER in table ip filter",
    ),
    (
        _iptables("-A FORWARD -p tcp --dport 443 -j ACCEPT"),
        "table ip filter, but for those that a rule before it lets pass; accept what comes by scow-t",
    ),
    (
        lambda: nft(FIREWALLD + '\nadd rule inet firewalld filter_FWD_public_deny oifname "lan0" drop'),
        "dropped by rule 1 of chain filter_FWD_public_deny in table inet firewalld",
    ),
]


@pytest.mark.parametrize(("deny", "said"), ADMINISTRATORS)
def test_an_administrators_deny_stays_and_is_named(play: Play, deny: Callable[[], None], said: str) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        deny()
        plugin = machine.plugin(linger=0)
        assert any(said in sentence for sentence in plugin.warnings(())), plugin.warnings(())
        assert "plugins.bridge.firewall" in " ".join(plugin.warnings(()))
        async with machine.on(plugin=plugin) as endpoint:
            with machine.serving(machine.lan, 80, "lan"):
                assert not ask(NEIGHBOUR, 80, _netns(endpoint), 0.3).startswith("lan")
            if "firewalld" not in said:
                assert "scow:" not in _program("nft list ruleset")
        assert not machine.plugin(firewall="ignore").warnings(())
        _program("nft flush ruleset")

    play(scenario)


def test_what_passes_needs_no_words(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        plugin = machine.plugin(linger=0)
        for rules in (
            'iifname "scow-*" accept; ct state vmap { established : accept, related : accept, invalid : drop };'
            'oifname "scow-t" ct status dnat accept',
            'iifname vmap { "lan0" : jump back, "scow-t" : accept, "else" : drop }',
            "ip saddr 10.201.0.0/16 accept; ct state established,related accept; ct status dnat accept",
        ):
            nft("table inet mine { chain back { ct state established,related accept; ct status dnat accept; }; }")
            nft(
                f"table inet mine {{ chain forward {{ type filter hook forward priority 5; policy drop; {rules}; }}; }}"
            )
            async with machine.on(publish="8080:80", plugin=machine.plugin(subnet="10.201.16.0/20", linger=0)) as end:
                assert not plugin.warnings(end.ports)
                with machine.serving(machine.lan, 80, "lan"):
                    assert ask(NEIGHBOUR, 80, _netns(end)).startswith("lan")
            _program("nft flush ruleset")

    play(scenario)


def test_a_table_that_belongs_to_firewalld_alone(play: Play) -> None:  # noqa: F811
    """firewalld 2.1's NftablesTableOwner: nobody else can change the table, so that its own program has to."""

    async def scenario(machine: Machine) -> None:
        inet, name = b"\1\0\0\0", _netlink.text(1, "firewalld")
        hook = _netlink.nest(4, _netlink.be32(1, 2), _netlink.be32(2, 10))
        chain = (
            inet + name + _netlink.text(3, "filter_FORWARD") + hook + _netlink.be32(5, 0) + _netlink.text(7, "filter")
        )
        with _netlink.Netlink(_netlink.NETFILTER) as daemon:
            table = _netlink.Message(10 << 8, _netlink.CREATE, inet + name + _netlink.be32(2, 2))
            _nft.commit(daemon, [table, _netlink.Message(10 << 8 | 3, _netlink.CREATE, chain)])
            plugin = machine.plugin(linger=0)
            async with machine.on(plugin=plugin):
                (said,) = plugin.warnings(())
            assert said.endswith(
                "dropped by the policy of chain filter_FORWARD in table inet firewalld (firewalld); "
                "let firewalld accept them: firewall-cmd --zone=trusted --add-interface=scow-t"
            )

    play(scenario)


def test_the_setting_is_changed_meanwhile(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        restore(DOCKER)
        before = listed()
        async with machine.on(plugin=machine.plugin()):
            assert OURS[0] in listed()
            async with machine.on("c2", plugin=machine.plugin(firewall="ignore")):
                assert listed() == before
                async with machine.on("c3", plugin=machine.plugin(linger=0)):
                    assert OURS[0] in listed()
        await trio.to_thread.run_sync(lambda: _until(lambda: listed() == before))
        _program("nft flush ruleset")

    play(scenario)


def test_reported_only(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        restore(DOCKER)
        plugin = machine.plugin(linger=0, firewall="report")
        async with machine.on(plugin=plugin) as endpoint:
            with machine.serving(machine.lan, 80, "lan"):
                assert ask(NEIGHBOUR, 80, _netns(endpoint), 0.3) == "silence"
            (said,) = plugin.warnings(())
        assert said == (
            "packets from containers to the outside are dropped by the policy of chain FORWARD in table ip filter "
            '(Docker); plugins.bridge.firewall = "open" in the configuration lets scow accept them there'
        )
        assert "scow" not in listed()
        _program("nft flush ruleset")

    play(scenario)


@pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="the program iptables-legacy writes legacy rules")
def test_legacy_tables(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        restore(DOCKER, "iptables-legacy-restore")
        before = _program("iptables-legacy -S")
        plugin = machine.plugin(linger=0)
        async with machine.on(publish="8080:80", plugin=plugin) as endpoint, machine.on("c2", plugin=plugin) as two:
            reaches(machine, endpoint, two)
            assert len(_program("iptables-legacy -S").splitlines()) == len(before.splitlines()) + 3
            _program("iptables-legacy -A FORWARD -j REJECT")
            async with machine.on("c3", plugin=plugin):
                reaches(machine, endpoint, two)
            _program("iptables-legacy -D FORWARD -j REJECT")
        assert _program("iptables-legacy -S") == before
        _program("iptables-legacy -F")
        assert (
            "policy of chain FORWARD in table filter of iptables-legacy"
            in machine.plugin(firewall="report").warnings(())[0]
        )
        _program("iptables-legacy -X")
        assert "lets scow" not in plugin.warnings(())[0], "with no chain of Docker's it is the administrator's"
        _program("iptables-legacy -P FORWARD ACCEPT")
        restore("*nat\n:PREROUTING ACCEPT\nCOMMIT\n", "iptables-legacy-restore")

    play(scenario)


def test_what_a_killed_supervisor_left_is_reclaimed(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        restore(DOCKER)
        before = listed()
        code = (
            "import sys, trio; from pathlib import Path\n"
            "from scow.api import *; from scow_plugins.bridge import Plugin\n"
            "from scow.testing.networks import MemoryJournal\n"
            "context = PluginContext('bridge', Path(sys.argv[1]), Path(sys.argv[1]), {}, instance='t')\n"
            "journal = MemoryJournal(watcher=lambda handle: print(handle['veth'], flush=True))\n"
            "asked = NetworkRequest('bridge', 'dead', 'd', 'd', journal)\n"
            "async def main():\n"
            "    async with Plugin(context).network(asked):\n"
            "        print('inside', flush=True); await trio.sleep_forever()\n"
            "trio.run(main)"
        )
        command = [sys.executable, "-c", code, str(machine.directory / "state-t")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220
            assert child.stdout is not None
            veth = child.stdout.readline().strip()
            assert child.stdout.readline() == "inside\n"
            child.kill()
        assert OURS[0] in listed()
        machine.plugin().reclaim({"veth": veth, "container": "dead"})
        assert listed() == before
        # The one that sweeps after a while takes them, too.
        async with machine.on(plugin=machine.plugin(linger=0.2)):
            assert OURS[0] in listed()
        assert OURS[0] in listed()
        _until(lambda: listed() == before)
        _program("nft flush ruleset")

    play(scenario)


def test_the_rules_are_what_iptables_itself_would_write(play: Play) -> None:  # noqa: F811
    async def scenario(machine: Machine) -> None:
        restore(DOCKER)
        async with machine.on(plugin=machine.plugin(linger=0)):
            made = _expressions()
            _program("iptables-nft -F FORWARD")
            for line in OURS:
                iptables(*shlex.split(line))
            assert made[-len(OURS) :] == _expressions()
            for line in OURS:  # and it finds them by what they say
                iptables("-C", *shlex.split(line)[1:])
        _program("nft flush ruleset")

    play(scenario)


def _expressions() -> list[bytes]:
    """FORWARD's rules as the kernel has them."""
    with _netlink.Netlink(_netlink.NETFILTER) as netlink:
        rules = [
            _netlink.attributes(reply.body, 4)
            for reply in netlink.dump(_netlink.Message(10 << 8 | 7, 0, b"\2\0\0\0" + _netlink.text(1, "filter")))
        ]
    return [rule[4] for rule in rules if rule[2] == b"FORWARD\0"]
