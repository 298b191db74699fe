"""The bridge's table in nf_tables, as data: which rules there are, and the map elements of published ports.

In nft's language (docs/design/network.md explains each line):

    table ip scow {
        map bound { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
        map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
        set opened { type ifname; }
        set accepted { type ifname; }
        set uplinks { type ifname; }
        chain publish {
            dnat ip to ip daddr . meta l4proto . th dport map @bound
            dnat ip to meta l4proto . th dport map @ports
        }
        chain guard { type filter hook prerouting priority raw;
            ip daddr 127.0.0.0/8 iifname != "lo" drop
            ip daddr SUBNET iifname != "lo" iifname != BRIDGE drop
        }
        chain prerouting { type nat hook prerouting priority dstnat; fib daddr type local jump publish; }
        chain output { type nat hook output priority dstnat; fib daddr type local jump publish; }
        chain forward { type filter hook forward priority filter;
            iifname @opened ct state & (established | related) == 0 ct status & dnat == 0 drop
            iifname @accepted oifname != BRIDGE oifname != @uplinks oifkind "bridge"
                ct state & (established | related) == 0 ct status & dnat == 0 drop
        }
        chain postrouting { type nat hook postrouting priority srcnat;
            ip saddr SUBNET oifname != BRIDGE masquerade
            oifname BRIDGE ip saddr 127.0.0.0/8 masquerade
            oifname BRIDGE ip saddr SUBNET ct status & dnat != 0 masquerade
        }
    }
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from . import _nft as nft
from ._netlink import Message
from ._state import Lease, Span

_PROTOCOLS: Final[Mapping[str, int]] = {"tcp": 6, "udp": 17}
_BOUND, _PORTS, _OPENED, _ACCEPTED, _UPLINKS = 1, 2, 3, 4, 5
_RAW, _DSTNAT, _FILTER, _SRCNAT = -300, -100, 0, 100
_CT_STATE, _CT_STATUS = 0, 2
_ESTABLISHED_OR_RELATED: Final = 6
_DNAT: Final = nft.STATUS_DNAT
_LOOPBACK: Final = (b"\x7f\0\0\0", b"\xff\0\0\0")
_TARGET: Final = (nft.concatenation(nft.TYPE_IPV4, nft.TYPE_PORT), 8)
#: Goes into the table's comment: a table made by another version of these rules is made anew.
_VERSION: Final = 2


def comment(bridge: str, subnet: IPv4Network) -> str:
    """What distinguishes this set of rules from any other."""
    return f"scow rules {_VERSION} {bridge} {subnet}"


def base(table: str, bridge: str, subnet: IPv4Network) -> Iterator[Message]:
    """The empty table anew, whatever was there before."""
    yield nft.add_table(table, "")
    yield nft.delete_table(table)
    yield nft.add_table(table, comment(bridge, subnet))
    key = nft.concatenation(nft.TYPE_PROTOCOL, nft.TYPE_PORT)
    bound = nft.concatenation(nft.TYPE_IPV4, nft.TYPE_PROTOCOL, nft.TYPE_PORT)
    yield nft.add_map(table, "bound", _BOUND, (bound, 12), _TARGET)
    yield nft.add_map(table, "ports", _PORTS, (key, 8), _TARGET)
    for name, number in (("opened", _OPENED), ("accepted", _ACCEPTED), ("uplinks", _UPLINKS)):
        yield nft.add_set(table, name, number, (nft.TYPE_IFNAME, 16))
    yield nft.add_chain(table, "publish")
    yield nft.add_chain(table, "guard", "filter", nft.PREROUTING, _RAW)
    yield nft.add_chain(table, "prerouting", "nat", nft.PREROUTING, _DSTNAT)
    yield nft.add_chain(table, "output", "nat", nft.OUTPUT, _DSTNAT)
    yield nft.add_chain(table, "forward", "filter", nft.FORWARD, _FILTER)
    yield nft.add_chain(table, "postrouting", "nat", nft.POSTROUTING, _SRCNAT)
    yield from _publishing(table)
    yield from _guarding(table, bridge, subnet)
    yield from _masquerading(table, bridge, subnet)


def _publishing(table: str) -> Iterator[Message]:
    any_address = nft.load_protocol(1) + nft.load_port(9) + nft.look_up("ports", _PORTS)
    one_address = nft.load_network(16, 4) + nft.load_protocol() + nft.load_port() + nft.look_up("bound", _BOUND)
    yield nft.add_rule(table, "publish", one_address, nft.to_destination())
    yield nft.add_rule(table, "publish", any_address, nft.to_destination())
    for chain in ("prerouting", "output"):
        yield nft.add_rule(table, chain, nft.to_this_host(), nft.verdict(nft.JUMP, "publish"))


def _guarding(table: str, bridge: str, subnet: IPv4Network) -> Iterator[Message]:
    drop = nft.verdict(nft.DROP)
    not_local = nft.entered_by("lo", negate=True)
    # Before any DNAT. Otherwise a neighbour that sends us a packet for 127.0.0.1 reaches ports published there.
    yield nft.add_rule(table, "guard", nft.destination_in(*_LOOPBACK), not_local, drop)
    # Nobody but the bridge itself brings packets for containers, unless they come by a published port.
    inside = nft.destination_in(*_packed(subnet))
    yield nft.add_rule(table, "guard", inside, not_local, nft.entered_by(bridge, negate=True), drop)
    # Devices that forward only because we made them do so must not turn this machine into a router for others.
    answers = nft.connection(_CT_STATE, _ESTABLISHED_OR_RELATED, any_of=False)
    published = nft.connection(_CT_STATUS, _DNAT, any_of=False)
    yield nft.add_rule(table, "forward", nft.entered_by_one_of("opened", _OPENED), answers, published, drop)
    # What others' firewalls accept because we asked them to goes to the outside, not to other engines' containers.
    inward = nft.not_one_of("uplinks", _UPLINKS) + nft.leaves_by_kind("bridge")
    ours = nft.entered_by_one_of("accepted", _ACCEPTED) + nft.leaves_by(bridge, negate=True)
    yield nft.add_rule(table, "forward", ours, inward, answers, published, drop)


def _masquerading(table: str, bridge: str, subnet: IPv4Network) -> Iterator[Message]:
    ours = nft.source_in(*_packed(subnet))
    to_bridge = nft.leaves_by(bridge)
    yield nft.add_rule(table, "postrouting", ours, nft.leaves_by(bridge, negate=True), nft.masquerade())
    # The container can't answer to our 127.0.0.1.
    yield nft.add_rule(table, "postrouting", to_bridge, nft.source_in(*_LOOPBACK), nft.masquerade())
    # A container by way of the host's port to a container: the answer must come back by the host.
    hairpin = nft.connection(_CT_STATUS, _DNAT, any_of=True)
    yield nft.add_rule(table, "postrouting", to_bridge, ours, hairpin, nft.masquerade())


def publish(table: str, leases: Iterable[Lease]) -> Iterator[Message]:
    """The published ports of endpoints."""
    for name, elements in _elements(leases):
        yield from nft.add_elements(table, name, elements)


def unpublish(table: str, leases: Iterable[Lease]) -> Iterator[Message]:
    """Take the published ports of endpoints back."""
    for name, elements in _elements(leases):
        yield from nft.delete_elements(table, name, elements)


def accept_none(table: str) -> Iterator[Message]:
    """No other firewall has rules for us any more."""
    yield nft.flush_set(table, "accepted")


def accept_devices(table: str, bridge: str, uplinks: Iterable[str]) -> Iterator[Message]:
    """Others' firewalls accept what comes by the bridge: from now on it goes to these and no other bridges.

    With no uplinks at all there is no outside; the set `accepted` is what turns the rule on.
    """
    yield nft.flush_set(table, "accepted")
    yield nft.flush_set(table, "uplinks")
    yield from nft.add_elements(table, "accepted", [(nft.ifname(bridge), None)])
    yield from nft.add_elements(table, "uplinks", [(nft.ifname(name), None) for name in uplinks])


def open_devices(table: str, names: Iterable[str]) -> Iterator[Message]:
    """Devices that forward for containers only."""
    return nft.add_elements(table, "opened", [(nft.ifname(name), None) for name in names])


def close_devices(table: str, names: Iterable[str]) -> Iterator[Message]:
    """Devices that somebody else wants to forward, too."""
    return nft.delete_elements(table, "opened", [(nft.ifname(name), None) for name in names])


def _elements(leases: Iterable[Lease]) -> Iterator[tuple[str, list[tuple[bytes, bytes | None]]]]:
    bound: list[tuple[bytes, bytes | None]] = []
    ports: list[tuple[bytes, bytes | None]] = []
    for lease in leases:
        target = IPv4Address(lease.address).packed
        for span in lease.ports:
            everywhere = span.host_ip == "0.0.0.0"
            prefix = b"" if everywhere else IPv4Address(span.host_ip).packed
            (ports if everywhere else bound).extend(_span(prefix, target, span))
    yield from (("bound", bound), ("ports", ports))


def _span(prefix: bytes, target: bytes, span: Span) -> Iterator[tuple[bytes, bytes]]:
    # Each part of a concatenation fills a register of four bytes.
    key = prefix + struct.pack("=Bxxx", _PROTOCOLS[span.protocol])
    for n in range(span.count):
        yield key + struct.pack("!Hxx", span.host_port + n), target + struct.pack("!Hxx", span.container_port + n)


def _packed(subnet: IPv4Network) -> tuple[bytes, bytes]:
    return subnet.network_address.packed, subnet.netmask.packed
