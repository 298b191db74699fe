"""Other people's firewalls in the way of our bridge: who drops its packets, and rules that let them pass.

A packet must be accepted at every base chain of the forward hook; no table overrules another's drop. So our rules
go where the drop is, and only where the program that put it there did so for want of knowing us: Docker, whose policy
for FORWARD is to drop; Podman's and firewalld's chains. What an administrator has said stays.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final, Literal

from . import _accepting, _legacy, _links, _nft, _ruleset
from ._netlink import Netlink, NetlinkError
from ._verdict import ESTABLISHED, Drop, Packet, Table, judge

Mode = Literal["open", "report", "ignore"]

#: So many different rules in one way are looked for; rules may also change while we do.
_ROUNDS: Final = 6
_CALLS_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


@dataclass(frozen=True, slots=True)
class Place:
    """Where packets come from and go to: our bridge, its subnet, and the device of the best default route."""

    bridge: str
    subnet: IPv4Network | None
    uplink: str

    def packets(self, *, published: bool) -> Iterator[Packet]:
        """The kinds of packets that have to pass."""
        inside = (self.subnet.network_address + 2).packed if self.subnet else None
        bridge, uplink = self.bridge, self.uplink
        if uplink:
            yield Packet("from containers to the outside", bridge, uplink, source=inside)
            yield Packet("of answers to containers", uplink, bridge, ESTABLISHED, destination=inside)
            if published:
                yield Packet("to published ports", uplink, bridge, dnat=True, destination=inside)
        # br_netfilter shows the forward hook what stays on the bridge, too.
        if _reads(_CALLS_FILTER) == "1":
            yield Packet("between containers", bridge, bridge, source=inside, destination=inside)


def _reads(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def owner(drop: Drop) -> str | None:
    """The program whose chain drops the packet, if it isn't the administrator's doing."""
    table = drop.table
    if table.name == "firewalld":
        return None if _by_hand(drop.chain) else "firewalld"
    if table.name == "netavark":
        return "Podman"
    if table.name.startswith("docker"):
        return "Docker"
    if table.name != "filter" or table.base != "FORWARD":
        return None
    if drop.rule is None:
        # Docker sets it when it turns on ip_forward. Podman and firewalld never do.
        return "Docker" if any(name.startswith("DOCKER") for name in table.chains) else None
    if drop.chain.startswith("DOCKER") and drop.chain != "DOCKER-USER":
        return "Docker"
    if drop.chain.startswith(("NETAVARK", "CNI-")):
        return "Podman"
    # firewalld before 0.9, or with FirewallBackend=iptables; its last rule stands in FORWARD itself.
    if any(name.startswith(("FORWARD_IN_ZONES", "FORWARD_direct", "FORWARD_POLICIES")) for name in table.chains):
        own = drop.chain == "FORWARD" or drop.chain.startswith(("FWD", "FORWARD_"))
        return "firewalld" if own and not _by_hand(drop.chain) else None
    return None


def _by_hand(chain: str) -> bool:
    """firewalld's chains for what an administrator has said: rich rules that deny, and direct ones."""
    return chain.endswith(("_deny", "_direct")) or chain == "FORWARD_direct"


def tables(filters: Netlink) -> Iterator[Table]:
    """All tables that decide on forwarded packets."""
    yield from _ruleset.forwarding_tables(filters)
    yield from _legacy.tables()


def drops(found: Sequence[Table], place: Place, *, published: bool) -> Iterator[Drop]:
    """What is in the way of our packets: one answer for each kind and table."""
    for packet in place.packets(published=published):
        for table in found:
            if (drop := judge(table, packet)) is not None:
                yield drop


def closed(filters: Netlink, place: Place) -> bool:
    """Does something drop our packets for want of knowing us?"""
    return any(_openable(filters, place))


def pass_through(filters: Netlink, place: Place) -> None:
    """Put accepting rules in front of what drops our packets for want of knowing us. Raises NetlinkError."""
    failed: NetlinkError | None = None
    for _ in range(_ROUNDS):
        fresh = {_chain(drop): drop for drop in _openable(filters, place)}
        if not fresh:
            return
        for drop in fresh.values():
            failed = _accept(filters, place.bridge, drop, native=failed is not None)
    if failed is not None:
        raise failed


def _openable(filters: Netlink, place: Place) -> Iterator[Drop]:
    found = list(drops(list(tables(filters)), place, published=True))
    # In front of a rule ours would also be in front of what an administrator has said behind it: then rather not.
    denied = {_chain(drop) for drop in found if owner(drop) is None}
    for drop in found:
        if owner(drop) and not drop.table.owned and (drop.entry is None or _chain(drop) not in denied):
            yield drop


def _chain(drop: Drop) -> tuple[str, str, str]:
    return drop.table.family, drop.table.name, drop.table.base


def _accept(filters: Netlink, bridge: str, drop: Drop, *, native: bool) -> NetlinkError | None:
    if drop.table.family == "legacy":
        _legacy.accept(drop.table, bridge, _accepting.comment(bridge), drop.entry)
        return None
    try:
        _nft.commit(filters, _accepting.accept(drop.table, bridge, drop.entry, native=native))
    except NetlinkError as error:
        if error.errno != errno.ENOENT:
            raise
        # The rule before which ours should stand is gone, or the kernel has no matches of iptables' (nft_compat).
        return error
    return None


def obstacles(filters: Netlink, place: Place, mode: Mode, *, published: bool) -> list[str]:
    """What will be in the way of containers, beside what `pass_through` opens: a sentence for each place."""
    found: dict[str, str] = {}
    for drop in drops(list(tables(filters)), place, published=published):
        if mode != "open" or drop.table.owned or owner(drop) is None:
            found.setdefault(str(drop), describe(drop, mode, place.bridge))
    if _legacy.present() and _legacy.program() is None:
        found["legacy"] = "there are rules of iptables-legacy, and no program iptables-legacy to see what they drop"
    return list(found.values())


def withdraw(filters: Netlink, bridge: str) -> None:
    """Take our rules out of others' tables, wherever they are."""
    seen: set[tuple[str, str]] = set()
    for table in _ruleset.forwarding_tables(filters):
        found = _accepting.ours(table, bridge)
        if found and (table.family, table.name) not in seen:
            seen.add((table.family, table.name))
            try:
                _nft.commit(filters, _accepting.remove(table, found))
            except NetlinkError as error:
                if error.errno != errno.ENOENT:  # flushed by somebody at this moment
                    raise
    _legacy.remove(_accepting.comment(bridge))


def uplinks(route: Netlink, bridge: str) -> tuple[str, list[str]]:
    """A device that leads to the outside ("" if there is none), and all that a route with a gateway leaves by.

    Bridges that such a route uses lead to the outside, too. Docker's and other engines' own ones have none.
    """
    known = _links.routes(route)
    by_gateway = {_name(each.device) for each in known if each.device and each.gateway} - {"", bridge}
    others = sorted({_name(each.device) for each in known if each.device} - {"", bridge, "lo"})
    best = _links.uplink_index(known)
    return _name(best) if best else (others or [""])[0], sorted(by_gateway)


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def describe(drop: Drop, mode: Mode, bridge: str) -> str:
    """A sentence on what is in the way, and how it can be cleared."""
    whose = owner(drop)
    said = f"packets {drop.packet.what} are dropped by {drop}" + (f" ({whose})" if whose else "")
    if drop.partly:
        said += ", but for those that a rule before it lets pass"
    if drop.table.owned:
        return f"{said}; let firewalld accept them: firewall-cmd --zone=trusted --add-interface={bridge}"
    if whose and mode != "open":
        return f'{said}; plugins.bridge.firewall = "open" in the configuration lets scow accept them there'
    return f'{said}; accept what comes by {bridge} and answers to it there, or set plugins.bridge.firewall = "ignore"'
