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
from ._state import Obstacle
from ._verdict import ESTABLISHED, Drop, Packet, judge

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

    def packets(self) -> Iterator[Packet]:
        """The kinds of packets that have to pass."""
        inside = (self.subnet.network_address + 2).packed if self.subnet else None
        bridge, uplink = self.bridge, self.uplink
        if uplink:
            yield Packet("from containers to the outside", bridge, uplink, source=inside)
            yield Packet("of answers to containers", uplink, bridge, ESTABLISHED, destination=inside)
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
    if drop.chain.startswith(("NETAVARK", "CNI-")) and drop.chain != "CNI-ADMIN":
        return "Podman"
    # firewalld before 0.9, or with FirewallBackend=iptables; its last rule stands in FORWARD itself.
    if any(name.startswith(("FORWARD_IN_ZONES", "FORWARD_direct", "FORWARD_POLICIES")) for name in table.chains):
        own = drop.chain == "FORWARD" or drop.chain.startswith(("FWD", "FORWARD_"))
        return "firewalld" if own and not _by_hand(drop.chain) else None
    return None


def _by_hand(chain: str) -> bool:
    """firewalld's chains for what an administrator has said: rich rules that deny, and direct ones."""
    return chain.endswith(("_deny", "_direct")) or chain == "FORWARD_direct"


def drops(filters: Netlink, place: Place) -> list[Drop]:
    """What is in the way of our packets: one answer for each kind and table."""
    tables = [*_ruleset.forwarding_tables(filters), *_legacy.tables()]
    judged = (judge(table, packet) for packet in place.packets() for table in tables)
    return [drop for drop in judged if drop is not None]


def openable(found: Sequence[Drop]) -> list[Drop]:
    """Those of the drops that are there for want of knowing us, and can be preceded."""
    # In front of a rule ours would also be in front of what an administrator has said behind it: then rather not.
    denied = {_chain(drop) for drop in found if owner(drop) is None}
    return [
        drop
        for drop in found
        if owner(drop) and not drop.table.owned and (drop.entry is None or _chain(drop) not in denied)
    ]


def _chain(drop: Drop) -> tuple[str, str, str]:
    return drop.table.family, drop.table.name, drop.table.base


def pass_through(filters: Netlink, place: Place, found: list[Drop]) -> list[Drop]:
    """Put accepting rules in front of what can be preceded; gives the drops that are left. Raises NetlinkError."""
    failed: NetlinkError | None = None
    for _ in range(_ROUNDS):
        # One for each chain: our three rules serve all kinds of packets.
        fresh = {_chain(drop): drop for drop in openable(found)}
        if not fresh:
            return found
        for drop in fresh.values():
            failed = _accept(filters, place.bridge, drop, native=failed is not None)
        found = drops(filters, place)
    if failed is not None:
        raise failed
    return found


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


def obstacles(found: Sequence[Drop], mode: Mode, bridge: str, *, opened: Sequence[Drop] = ()) -> list[Obstacle]:
    """What is in the way of containers, but for what is `opened` once there is one: one for each place."""
    told: dict[str, Obstacle] = {}
    for drop in found:
        if drop not in opened:
            told.setdefault(str(drop), Obstacle(describe(drop, mode, bridge), drop.packet.dnat))
    if _legacy.present() and _legacy.program() is None:
        said = "there are rules of iptables-legacy, and no program iptables-legacy to see what they drop"
        told["legacy"] = Obstacle(said, published=False)
    return list(told.values())


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
