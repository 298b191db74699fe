"""pyroute2 as the second opinion: what the bridge's own encoder writes, another reader understands the same way."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv4Interface

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from scow_plugins.bridge import _links
from scow_plugins.bridge._netlink import Message


def read(message: Message, reader: type) -> dict[str, object]:
    """The fields and attributes that pyroute2 finds in a message."""
    header = struct.pack("=IHHII", 16 + len(message.body), message.kind, message.flags, 1, 0)
    decoded = reader(header + message.body)
    decoded.decode()
    return {**{key: value for key, value in decoded.items() if key != "attrs"}, **dict(decoded["attrs"])}


def test_veth() -> None:
    address = IPv4Address("10.9.8.7")
    found = read(_links.create_veth("vethtest", 42, 9, address, 1400), ifinfmsg)
    assert (found["IFLA_IFNAME"], found["IFLA_MASTER"], found["IFLA_MTU"]) == ("vethtest", 42, 1400)
    info = dict(found["IFLA_LINKINFO"]["attrs"])  # type: ignore[index]
    assert info["IFLA_INFO_KIND"] == "veth"
    peer = dict(dict(info["IFLA_INFO_DATA"]["attrs"])["VETH_INFO_PEER"]["attrs"])
    assert (peer["IFLA_IFNAME"], peer["IFLA_NET_NS_FD"]) == (_links.PEER_NAME, 9)
    assert peer["IFLA_ADDRESS"] == _links.mac_of(address).hex(":")


def test_bridge() -> None:
    found = read(_links.create_bridge("scowtest", IPv4Address("10.9.8.1"), 1400), ifinfmsg)
    assert (found["IFLA_IFNAME"], found["IFLA_MTU"]) == ("scowtest", 1400)
    assert dict(found["IFLA_LINKINFO"]["attrs"])["IFLA_INFO_KIND"] == "bridge"  # type: ignore[index]


def test_address_and_route() -> None:
    found = read(_links.add_address(7, IPv4Interface("10.9.8.1/20")), ifaddrmsg)
    assert (found["index"], found["prefixlen"], found["IFA_LOCAL"]) == (7, 20, "10.9.8.1")
    found = read(_links.default_route(7, IPv4Address("10.9.8.1")), rtmsg)
    assert (found["dst_len"], found["RTA_OIF"], found["RTA_GATEWAY"]) == (0, 7, "10.9.8.1")
