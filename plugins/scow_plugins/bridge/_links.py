"""Links, addresses, routes and forwarding entries as rtnetlink requests (rtnetlink(7), linux/if_link.h).

Only builds and reads messages; who sends them decides.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Final

from ._netlink import CREATE, EXCL, REPLACE, Message, Netlink, Reply, attr, attributes, nest, text, u32

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, GETADDR = 20, 22
NEWROUTE, GETROUTE = 24, 26
NEWNEIGH: Final = 28
UP: Final = 0x1
PEER_NAME: Final = "eth0"

_ADDRESS, _IFNAME, _MTU, _MASTER, _LINKINFO, _IFALIAS, _NET_NS_FD = 1, 3, 4, 10, 18, 20, 28
_PROTINFO: Final = 12
_OPERSTATE: Final = 16
_OPERATIONAL: Final = (b"\0", b"\6")
_KIND, _DATA = 1, 2
_VETH_PEER: Final = 1
_PORT_STATE: Final = 1
_PORT_HAIRPIN: Final = 4
_PORT_FLUSH: Final = 24
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 6, 15, 18
_NDA_LLADDR: Final = 2
_TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _UNICAST = 254, 3, 0, 1
_NTF_MASTER: Final = 0x04
_NUD_REACHABLE: Final = 0x02


@dataclass(frozen=True, slots=True)
class Link:
    """A network device as the kernel describes it."""

    index: int
    name: str
    kind: str
    up: bool
    #: Operational (RFC 2863): up, with a carrier; devices that don't say count as such.
    running: bool
    mtu: int
    alias: str
    master: int


@dataclass(frozen=True, slots=True)
class Route:
    """An IPv4 route: destination, leaving device's index (0: none), metric, whether by a gateway."""

    destination: IPv4Network
    device: int
    metric: int
    gateway: bool


def mac_of(address: IPv4Address) -> bytes:
    """The hardware address that belongs to an IP address: 02:42 and its four bytes, as Docker makes them.

    The same address always has the same MAC, so that ARP caches stay right when an address is used again.
    """
    return b"\x02\x42" + address.packed


def _link(index: int = 0, flags: int = 0, change: int = 0, family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 0, index, flags, change)


def create_bridge(name: str, gateway: IPv4Address, mtu: int) -> Message:
    """A bridge that is up. With a hardware address of its own: it would change with its ports otherwise."""
    body = _link(flags=UP, change=UP) + text(_IFNAME, name) + attr(_ADDRESS, mac_of(gateway)) + u32(_MTU, mtu)
    return Message(NEWLINK, CREATE | EXCL, body + nest(_LINKINFO, text(_KIND, "bridge")))


def describe(name: str, alias: str) -> Message:
    """Write a device's alias, a free text shown by `ip link`; creating a device ignores it."""
    return Message(SETLINK, 0, _link() + text(_IFNAME, name) + attr(_IFALIAS, alias.encode()))


def create_veth(name: str, bridge: int, netns: int, address: IPv4Address, mtu: int) -> Message:
    """A veth pair: one end up and a port of `bridge`, the other `eth0` in the namespace of descriptor `netns`.

    That one is still down: the kernel can't bring it up before it knows its peer (ENOTCONN).
    """
    peer = _link() + text(_IFNAME, PEER_NAME) + attr(_ADDRESS, mac_of(address))
    peer += u32(_MTU, mtu) + u32(_NET_NS_FD, netns)
    info = nest(_LINKINFO, text(_KIND, "veth"), nest(_DATA, attr(_VETH_PEER, peer)))
    body = _link(flags=UP, change=UP) + text(_IFNAME, name) + u32(_MTU, mtu) + u32(_MASTER, bridge) + info
    return Message(NEWLINK, CREATE | EXCL, body)


def enslave(name: str, bridge: int) -> Message:
    """Make a device a port of a bridge."""
    return Message(SETLINK, 0, _link() + text(_IFNAME, name) + u32(_MASTER, bridge))


def set_up(index: int) -> Message:
    """Bring a device up."""
    return Message(SETLINK, 0, _link(index, UP, UP))


def forward_port(index: int) -> Message:
    """A bridge's port forwards from now on, also back to where a frame came from (hairpin mode).

    The kernel would begin to forward by itself, but some time after the peer is up. Hairpin mode is for a container
    that asks for its own published port: with br_netfilter (built in, or loaded by Docker) the bridge itself
    redirects such a frame, and would drop it.
    """
    info = nest(_PROTINFO, attr(_PORT_STATE, b"\3"), attr(_PORT_HAIRPIN, b"\1"))
    return Message(SETLINK, 0, _link(index, family=socket.AF_BRIDGE) + info)


def detach_port(index: int) -> Message:
    """A bridge's port stops forwarding and what was learnt on it is forgotten, at once and without a grace period."""
    info = nest(_PROTINFO, attr(_PORT_STATE, b"\0"), attr(_PORT_FLUSH, b""))
    return Message(SETLINK, 0, _link(index, family=socket.AF_BRIDGE) + info)


def delete_link(name: str) -> Message:
    """Delete a device. The kernel answers after several RCU grace periods: 10 to 70 ms."""
    return Message(DELLINK, 0, _link() + text(_IFNAME, name))


def add_address(index: int, address: IPv4Interface) -> Message:
    """Give a device an address, with its network's broadcast address and route."""
    body = struct.pack("=BBBBI", socket.AF_INET, address.network.prefixlen, 0, _SCOPE_UNIVERSE, index)
    body += attr(_IFA_LOCAL, address.packed) + attr(_IFA_ADDRESS, address.packed)
    return Message(NEWADDR, CREATE | EXCL, body + attr(_IFA_BROADCAST, address.network.broadcast_address.packed))


def default_route(index: int, gateway: IPv4Address) -> Message:
    """A default route by `gateway` over a device."""
    body = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _UNICAST, 0)
    return Message(NEWROUTE, CREATE | EXCL, body + attr(_RTA_GATEWAY, gateway.packed) + u32(_RTA_OIF, index))


def learn(index: int, address: IPv4Address) -> Message:
    """Tell a bridge on which port an address now lives, whatever it has learnt before of the same MAC."""
    body = struct.pack("=BxxxIHBB", socket.AF_BRIDGE, index, _NUD_REACHABLE, _NTF_MASTER, 0)
    return Message(NEWNEIGH, CREATE | REPLACE, body + attr(_NDA_LLADDR, mac_of(address)))


def find_link(netlink: Netlink, name: str) -> Link | None:
    """The device called `name`, or None."""
    reply = netlink.get(Message(GETLINK, 0, _link() + text(_IFNAME, name)))
    return None if reply is None else _read_link(reply)


def link_at(netlink: Netlink, index: int) -> Link | None:
    """The device with this index, or None."""
    reply = netlink.get(Message(GETLINK, 0, _link(index)))
    return None if reply is None else _read_link(reply)


def ports_of(netlink: Netlink, bridge: int) -> list[Link]:
    """The devices that are ports of a bridge."""
    links = [_read_link(reply) for reply in netlink.dump(Message(GETLINK, 0, _link() + u32(_MASTER, bridge)))]
    return [link for link in links if link.master == bridge]


def _read_link(reply: Reply) -> Link:
    index, flags = struct.unpack_from("=iI", reply.body, 4)
    found = attributes(reply.body, 16)
    info = attributes(found.get(_LINKINFO, b""))
    return Link(
        index=index,
        name=_text(found.get(_IFNAME)),
        kind=_text(info.get(_KIND)),
        up=bool(flags & UP),
        running=found.get(_OPERSTATE, b"\0") in _OPERATIONAL,
        mtu=_number(found.get(_MTU)),
        alias=_text(found.get(_IFALIAS)),
        master=_number(found.get(_MASTER)),
    )


def addresses(netlink: Netlink) -> list[tuple[int, IPv4Interface]]:
    """All IPv4 addresses here, with the index of the device that has them."""
    found = []
    for reply in netlink.dump(Message(GETADDR, 0, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0))):
        _, prefix, _, _, index = struct.unpack_from("=BBBBI", reply.body)
        given = attributes(reply.body, 8)
        packed = given.get(_IFA_LOCAL) or given.get(_IFA_ADDRESS)
        if packed:
            found.append((index, IPv4Interface((packed, prefix))))
    return found


def routes(netlink: Netlink) -> list[Route]:
    """All IPv4 unicast routes, of every table but `local` (whose entries are the addresses)."""
    found = []
    for reply in netlink.dump(Message(GETROUTE, 0, struct.pack("=8BI", socket.AF_INET, *[0] * 8))):
        _, prefix, _, _, table, _, _, kind = struct.unpack_from("=8B", reply.body)
        given = attributes(reply.body, 12)
        if table == 255 or kind != _UNICAST:
            continue
        destination = IPv4Network((given.get(_RTA_DST, bytes(4)), prefix), strict=False)
        device, metric = _number(given.get(_RTA_OIF)), _number(given.get(_RTA_PRIORITY))
        found.append(Route(destination, device, metric, _RTA_GATEWAY in given or _RTA_VIA in given))
    return found


def uplink_index(known: Sequence[Route]) -> int:
    """The device that the best default route leaves by; 0 without one."""
    candidates = [route for route in known if route.destination.prefixlen == 0 and route.device]
    return min(candidates, key=lambda route: route.metric).device if candidates else 0


def uplink_mtu(netlink: Netlink, default: int = 1500) -> int:
    """The MTU of the device that the best default route leaves by."""
    index = uplink_index(routes(netlink))
    link = link_at(netlink, index) if index else None
    # A bridge takes no more than 65535; loopback as uplink has 65536.
    return min(link.mtu, 65535) if link else default


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "little" if struct.pack("=H", 1) == b"\1\0" else "big") if value else 0
