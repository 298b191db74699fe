"""How other people's rules are read and judged, without a kernel that has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.bridge import _legacy
from scow_plugins.bridge._expressions import read_rule
from scow_plugins.bridge._firewall import Place, describe, obstacles, openable, owner
from scow_plugins.bridge._verdict import ESTABLISHED, Drop, Packet, judge

OUT = Packet("from containers to the outside", "scow0", "eth0", source=b"\x0a\xc9\x00\x02")
BACK = Packet("of answers to containers", "eth0", "scow0", ESTABLISHED, destination=b"\x0a\xc9\x00\x02")
PUBLISHED = Packet("to published ports", "eth0", "scow0", dnat=True, destination=b"\x0a\xc9\x00\x02")

#: Rules as `iptables -S` says them, and what drops OUT, BACK and PUBLISHED: the policy (0), a rule's number, or None.
TABLE = [
    ("-P FORWARD ACCEPT", (None, None, None)),
    ("-P FORWARD DROP", (0, 0, 0)),
    ("-P FORWARD DROP\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", (0, None, 0)),
    ("-P FORWARD DROP\n-A FORWARD -m state --state RELATED,ESTABLISHED -j ACCEPT", (0, None, 0)),
    ("-P FORWARD DROP\n-A FORWARD -i scow+ -j ACCEPT", (None, 0, 0)),
    ("-P FORWARD DROP\n-A FORWARD ! -i eth+ -j ACCEPT", (None, 0, 0)),
    (
        "-P FORWARD DROP\n-A FORWARD -s 10.201.0.0/16 -j ACCEPT\n-A FORWARD -d 10.201.0.0/20 -j ACCEPT",
        (None, None, None),
    ),
    ("-P FORWARD DROP\n-A FORWARD ! -s 10.201.0.0/16 -j ACCEPT", (0, 0, 0)),
    ("-P FORWARD DROP\n-A FORWARD -o scow0 -m conntrack --ctstate ESTABLISHED,DNAT -j ACCEPT", (0, None, None)),
    ("-P FORWARD ACCEPT\n-A FORWARD -m conntrack ! --ctstate NEW -j ACCEPT\n-A FORWARD -j REJECT", (2, None, 2)),
    ("-P FORWARD ACCEPT\n-A FORWARD -p udp -j DROP\n-A FORWARD -p tcp -o eth0 -j DROP", (2, None, None)),
    ("-P FORWARD ACCEPT\n-A FORWARD -p tcp -m tcp --dport 25 -j DROP", (None, None, None)),
    ("-P FORWARD DROP\n-N A\n-A FORWARD -j A\n-A A -i scow0 -j RETURN\n-A A -j ACCEPT", (0, None, None)),
    ("-P FORWARD ACCEPT\n-N A\n-A FORWARD -g A\n-A FORWARD -j DROP\n-A A -i eth0 -j DROP", (None, 1, 1)),
    ("-P FORWARD ACCEPT\n-N A\n-A FORWARD -i scow0 -j A\n-A A -j LOG --log-prefix x\n-A A -j DROP", (2, None, None)),
    ('-P FORWARD ACCEPT\n-A FORWARD -m comment --comment "-j DROP" -o eth0 -j DROP', (1, None, None)),
    ("-P FORWARD ACCEPT\n-N A\n-A FORWARD -j A\n-A A -j A", (None, None, None)),
]


@pytest.mark.parametrize(("rules", "expected"), TABLE)
def test_what_drops_a_packet(rules: str, expected: tuple[int | None, ...]) -> None:
    table = _legacy.parse(rules)
    found = [judge(table, packet) for packet in (OUT, BACK, PUBLISHED)]
    assert tuple(drop and (drop.rule.handle if drop.rule else 0) for drop in found) == expected


def test_what_a_rule_may_have_spared_is_said() -> None:
    drop = judge(_legacy.parse("-P FORWARD DROP\n-A FORWARD -p tcp -m tcp --dport 443 -j ACCEPT"), OUT)
    assert drop is not None
    assert "but for those that a rule before it lets pass" in describe(drop, "open", "scow0")
    plain = judge(_legacy.parse("-P FORWARD DROP\n-A FORWARD -p icmp -j ACCEPT"), OUT)
    assert plain is not None
    assert describe(plain, "open", "scow0") == (
        "packets from containers to the outside are dropped by the policy of chain FORWARD in table filter of "
        'iptables-legacy; accept what comes by scow0 and answers to it there, or set plugins.bridge.firewall = "ignore"'
    )


#: As Docker 28 writes them.
DOCKER_28 = """-P FORWARD DROP
-N DOCKER
-N DOCKER-BRIDGE
-N DOCKER-CT
-N DOCKER-FORWARD
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
"""

OWNERS = [
    ("-P FORWARD DROP", None),
    ("-P FORWARD DROP\n-N DOCKER\n-N DOCKER-USER", "Docker"),
    (DOCKER_28, "Docker"),
    ("-P FORWARD DROP\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j DROP", None),
    ("-P FORWARD DROP\n-N DOCKER\n-A FORWARD -j REJECT", None),
    ("-P FORWARD DROP\n-N NETAVARK_FORWARD\n-A FORWARD -j NETAVARK_FORWARD", None),
    ("-P FORWARD ACCEPT\n-N NETAVARK_FORWARD\n-A FORWARD -j NETAVARK_FORWARD\n-A NETAVARK_FORWARD -j DROP", "Podman"),
    ("-P FORWARD ACCEPT\n-N FORWARD_direct\n-A FORWARD -j FORWARD_direct\n-A FORWARD -j REJECT", "firewalld"),
    ("-P FORWARD ACCEPT\n-N FORWARD_direct\n-A FORWARD -j FORWARD_direct\n-A FORWARD_direct -j REJECT", None),
    ("-P FORWARD ACCEPT\n-N FWDI_public_deny\n-A FORWARD -j FWDI_public_deny\n-A FWDI_public_deny -j DROP", None),
]


@pytest.mark.parametrize(("rules", "expected"), OWNERS)
def test_whose_chain_drops(rules: str, expected: str | None) -> None:
    drop = judge(_legacy.parse(rules), OUT)
    assert drop is not None
    assert owner(drop) == expected
    assert openable([drop]) == ([drop] if expected else [])


def test_each_place_is_told_once() -> None:
    table = _legacy.parse("-P FORWARD DROP")
    found: list[Drop] = [drop for packet in Place("scow0", None, "eth0").packets() if (drop := judge(table, packet))]
    assert len(found) >= 3
    assert len(obstacles(found, "open", "scow0")) == 1


@given(st.binary(max_size=400))
def test_no_rule_of_any_content_is_too_much(packed: bytes) -> None:
    rule = read_rule(1, packed, "", lambda _: None)
    for condition in rule.conditions:
        condition(OUT)
