"""A minimal nfnetlink encoder for nf_tables (linux/netfilter/nf_tables.h): tables, sets, chains, rules, elements.

Only what the bridge's rules need, checked against `nft --debug=netlink` in the tests. A batch is one transaction:
all of it or nothing, visible to packets at one moment.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ._netlink import CREATE, EXCL, Message, Netlink, NetlinkError, attr, attributes, be32, nest, text

_SUBSYSTEM: Final = 10 << 8
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET = 0, 1, 2, 3, 6, 9
_NEWSETELEM, _DELSETELEM, _GETGEN = 12, 14, 16
_BATCH_BEGIN, _BATCH_END = 16, 17
_APPEND: Final = 0x800
_IPV4: Final = 2
_UNSPEC: Final = 0
_REG_VERDICT, _REG_1, _REG_9, _REG_10 = 0, 1, 9, 10
_EQ, _NEQ = 0, 1
_SET_MAP: Final = 0x8

ACCEPT, DROP, JUMP = 1, 0, -3
PREROUTING, FORWARD, OUTPUT, POSTROUTING = 0, 2, 3, 4

#: conntrack's status bit for redirected (IPS_DST_NAT).
STATUS_DNAT: Final = 0x20

#: How nft names types in sets (its own numbering, six bits each, so that `nft list` can show them).
TYPE_IPV4, TYPE_PROTOCOL, TYPE_PORT, TYPE_IFNAME = 7, 12, 13, 41

#: Elements per message: an attribute's length has 16 bits, an element takes at most 48 bytes.
_CHUNK: Final = 1000

_header = struct.pack("!BBH", _IPV4, 0, 0)


def concatenation(*types: int) -> int:
    """The number of a concatenated type."""
    number = 0
    for kind in types:
        number = number << 6 | kind
    return number


# Objects ------------------------------------------------------------------------------------------------------------


def add_table(name: str, comment: str) -> Message:
    """A table; not an error when there is one. `comment` (at most 250 bytes) is shown by `nft list`."""
    return Message(_SUBSYSTEM | _NEWTABLE, CREATE, _header + text(1, name) + be32(2, 0) + attr(6, _user_data(comment)))


def _user_data(comment: str) -> bytes:
    """How libnftnl keeps a comment: one byte of type, one of length, and a terminated string."""
    data = comment.encode() + b"\0"
    return bytes((0, len(data))) + data


def delete_table(name: str) -> Message:
    """Remove a table with all that is in it."""
    return Message(_SUBSYSTEM | _DELTABLE, 0, _header + text(1, name))


def add_map(table: str, name: str, number: int, key: tuple[int, int], data: tuple[int, int]) -> Message:
    """A map; `key` and `data` are (type, length in bytes). `number` is its identity within the batch."""
    body = _header + text(1, table) + text(2, name) + be32(3, _SET_MAP) + be32(4, key[0]) + be32(5, key[1])
    return Message(_SUBSYSTEM | _NEWSET, CREATE, body + be32(6, data[0]) + be32(7, data[1]) + be32(10, number))


def add_set(table: str, name: str, number: int, key: tuple[int, int]) -> Message:
    """A set of keys of (type, length in bytes)."""
    body = _header + text(1, table) + text(2, name) + be32(3, 0) + be32(4, key[0]) + be32(5, key[1])
    # User data of libnftnl: the keys' byte order is the machine's. Only `nft list` wants to know.
    return Message(_SUBSYSTEM | _NEWSET, CREATE, body + be32(10, number) + attr(13, struct.pack("=BBI", 0, 4, 1)))


def add_chain(table: str, name: str, kind: str = "", hook: int = 0, priority: int = 0) -> Message:
    """A chain; with `kind` (filter, nat) a base chain whose policy is to accept."""
    body = _header + text(1, table) + text(3, name)
    if kind:
        body += nest(4, be32(1, hook), be32(2, priority)) + be32(5, ACCEPT) + text(7, kind)
    return Message(_SUBSYSTEM | _NEWCHAIN, CREATE, body)


def add_rule(table: str, chain: str, *expressions: bytes) -> Message:
    """Append a rule to a chain."""
    body = _header + text(1, table) + text(2, chain) + nest(4, *expressions)
    return Message(_SUBSYSTEM | _NEWRULE, CREATE | _APPEND, body)


def add_elements(table: str, name: str, elements: Sequence[tuple[bytes, bytes | None]]) -> Iterator[Message]:
    """Put (key, data) into a map, or (key, None) into a set. A key that is there makes the batch fail (EEXIST)."""
    return _elements(_NEWSETELEM, CREATE | EXCL, table, name, elements)


def delete_elements(table: str, name: str, elements: Sequence[tuple[bytes, bytes | None]]) -> Iterator[Message]:
    """Take elements out. One that isn't there makes the batch fail (ENOENT)."""
    return _elements(_DELSETELEM, 0, table, name, elements)


def flush_set(table: str, name: str) -> Message:
    """Take all elements out of a set."""
    return Message(_SUBSYSTEM | _DELSETELEM, 0, _header + text(1, table) + text(2, name))


def _elements(
    kind: int, flags: int, table: str, name: str, elements: Sequence[tuple[bytes, bytes | None]]
) -> Iterator[Message]:
    for start in range(0, len(elements), _CHUNK):
        packed = (
            nest(1, nest(1, attr(1, key)), b"" if data is None else nest(2, attr(1, data)))
            for key, data in elements[start : start + _CHUNK]
        )
        body = _header + text(1, table) + text(2, name) + nest(3, *packed)
        yield Message(_SUBSYSTEM | kind, flags, body)


# Expressions --------------------------------------------------------------------------------------------------------


def _expression(name: str, *attributes_: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *attributes_))


def _compare(operation: int, value: bytes) -> bytes:
    return _expression("cmp", be32(1, _REG_1), be32(2, operation), nest(3, attr(1, value)))


def load_network(offset: int, length: int, register: int = _REG_1) -> bytes:
    """Bytes of the IPv4 header: 12 is the source, 16 the destination."""
    return _expression("payload", be32(1, register), be32(2, 1), be32(3, offset), be32(4, length))


def load_port(register: int = _REG_10) -> bytes:
    """The destination port of TCP and UDP."""
    return _expression("payload", be32(1, register), be32(2, 2), be32(3, 2), be32(4, 2))


def load_protocol(register: int = _REG_9) -> bytes:
    """The transport protocol's number."""
    return _expression("meta", be32(2, 16), be32(1, register))


def source_in(network: bytes, mask: bytes) -> bytes:
    """Go on only if the source address is in a network."""
    return load_network(12, 4) + _mask(mask) + _compare(_EQ, network)


def destination_in(network: bytes, mask: bytes) -> bytes:
    """Go on only if the destination address is in a network."""
    return load_network(16, 4) + _mask(mask) + _compare(_EQ, network)


def entered_by(name: str, *, negate: bool = False) -> bytes:
    """Go on only if the packet came by this device (or by another one)."""
    return _expression("meta", be32(2, 6), be32(1, _REG_1)) + _compare(_NEQ if negate else _EQ, ifname(name))


def leaves_by(name: str, *, negate: bool = False) -> bytes:
    """Go on only if the packet leaves by this device (or by another one)."""
    return _expression("meta", be32(2, 7), be32(1, _REG_1)) + _compare(_NEQ if negate else _EQ, ifname(name))


def entered_by_one_of(set_name: str, number: int) -> bytes:
    """Go on only if the packet came by a device in a set."""
    return _expression("meta", be32(2, 6), be32(1, _REG_1)) + _expression(
        "lookup", text(1, set_name), be32(2, _REG_1), be32(4, number)
    )


def not_one_of(set_name: str, number: int) -> bytes:
    """Go on only if the packet leaves by a device that isn't in a set."""
    return _expression("meta", be32(2, 7), be32(1, _REG_1)) + _expression(
        "lookup", text(1, set_name), be32(2, _REG_1), be32(4, number), be32(5, 1)
    )


def leaves_by_kind(kind: str) -> bytes:
    """Go on only if the device that the packet leaves by is of a kind, such as `bridge` (since Linux 5.0)."""
    return compare_meta(27, ifname(kind))


def compare_meta(key: int, value: bytes) -> bytes:
    """Go on only if a packet's property (NFT_META_*) begins with these bytes."""
    return _expression("meta", be32(2, key), be32(1, _REG_1)) + _compare(_EQ, value)


def match(name: str, revision: int, info: bytes) -> bytes:
    """Go on only if a match of iptables' (xt_NAME) says so; `info` is its struct, padded to eight bytes."""
    return _expression("match", text(1, name), be32(2, revision), attr(3, info))


def counter() -> bytes:
    """Count packets and bytes, as iptables does in every rule."""
    return _expression("counter", attr(1, bytes(8)), attr(2, bytes(8)))


def to_this_host() -> bytes:
    """Go on only if the destination is an address of this machine (fib daddr type local)."""
    return _expression("fib", be32(1, _REG_1), be32(2, 3), be32(3, 2)) + _compare(_EQ, struct.pack("=I", 2))


def connection(field: int, bits: int, *, any_of: bool) -> bytes:
    """Go on only if any (or none) of `bits` is set in conntrack's state (field 0) or status (field 2)."""
    load = _expression("ct", be32(1, _REG_1), be32(2, field))
    return load + _mask(struct.pack("=I", bits)) + _compare(_NEQ if any_of else _EQ, bytes(4))


def _mask(mask: bytes) -> bytes:
    length = be32(3, len(mask))
    return _expression(
        "bitwise", be32(1, _REG_1), be32(2, _REG_1), length, nest(4, attr(1, mask)), nest(5, attr(1, bytes(len(mask))))
    )


def verdict(code: int, chain: str = "") -> bytes:
    """Drop, accept, or jump to a chain."""
    target = text(2, chain) if chain else b""
    return _expression("immediate", be32(1, _REG_VERDICT), nest(2, nest(2, be32(1, code), target)))


def look_up(map_name: str, number: int) -> bytes:
    """Replace the key in register 1 by the map's data; without such a key the rule doesn't match."""
    return _expression("lookup", text(1, map_name), be32(2, _REG_1), be32(3, _REG_1), be32(4, number))


def to_destination() -> bytes:
    """DNAT to the address in register 1 and the port after it."""
    return _expression("nat", be32(1, 1), be32(2, _IPV4), be32(3, _REG_1), be32(5, _REG_9))


def masquerade() -> bytes:
    """SNAT to the address of the device that the packet leaves by."""
    return _expression("masq")


def ifname(name: str) -> bytes:
    """A device's name as nf_tables compares it: 16 bytes."""
    return name.encode().ljust(16, b"\0")


# Transactions -------------------------------------------------------------------------------------------------------


def commit(netlink: Netlink, messages: Iterable[Message]) -> None:
    """Do all or nothing. Raises NetlinkError; errno says which rule of nf_tables was broken."""
    marker = struct.pack("!BBH", _UNSPEC, 0, 10)
    begin = Message(_BATCH_BEGIN, 0, marker, quiet=True)
    end = Message(_BATCH_END, 0, marker, quiet=True)
    body = list(messages)
    if body:
        netlink.raise_first(netlink.attempt([begin, *body, end]))


def table_comment(netlink: Netlink, name: str) -> str | None:
    """The comment of a table, "" if it has none, None without such a table."""
    reply = netlink.get(Message(_SUBSYSTEM | _GETTABLE, 0, _header + text(1, name)))
    return None if reply is None else attributes(reply.body, 4).get(6, b"")[2:-1].decode(errors="replace")


def tables(netlink: Netlink) -> list[str]:
    """The names of all IPv4 tables."""
    replies = netlink.dump(Message(_SUBSYSTEM | _GETTABLE, 0, _header))
    return [attributes(reply.body, 4)[1].rstrip(b"\0").decode(errors="replace") for reply in replies]


def available(netlink: Netlink) -> bool:
    """Does this kernel have nf_tables?"""
    try:
        return netlink.get(Message(_SUBSYSTEM | _GETGEN, 0, struct.pack("!BBH", _UNSPEC, 0, 0))) is not None
    except NetlinkError as error:
        if error.errno == errno.EPERM:
            raise
        return False
