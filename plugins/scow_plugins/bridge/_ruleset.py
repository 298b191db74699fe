"""The tables of nf_tables that decide on forwarded IPv4 packets, read from the kernel."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from ._expressions import read_rule, read_verdict
from ._netlink import Message, Netlink, attribute_list, attributes, text
from ._nft import FORWARD
from ._verdict import Rule, Table, Verdict

_SUBSYSTEM: Final = 10 << 8
_GETTABLE, _GETCHAIN, _GETRULE, _GETSET, _GETSETELEM, _GETGEN = 1, 4, 7, 10, 13, 16
_FAMILIES: Final[Mapping[int, Literal["ip", "inet"]]] = {2: "ip", 1: "inet"}
FAMILY_NUMBERS: Final[Mapping[str, int]] = {name: number for number, name in _FAMILIES.items()}
_SET_INTERVAL: Final = 0x4
_TABLE_OWNER: Final = 0x2


def generation(netlink: Netlink) -> int:
    """A number that every change of the rules increases."""
    reply = netlink.get(Message(_SUBSYSTEM | _GETGEN, 0, header(0)))
    return 0 if reply is None else int.from_bytes(attributes(reply.body, 4).get(1, b""), "big")


def header(family: int) -> bytes:
    """struct nfgenmsg."""
    return struct.pack("!BBH", family, 0, 0)


def forwarding_tables(netlink: Netlink) -> Iterator[Table]:
    """The tables with a base chain at the forward hook, one entry for each such chain, but for scow's own."""
    chains: dict[tuple[int, str], dict[str, dict[int, bytes]]] = {}
    for reply in netlink.dump(Message(_SUBSYSTEM | _GETCHAIN, 0, header(0))):
        found = attributes(reply.body, 4)
        table, name = _text(found[1]), _text(found[3])
        if reply.body[0] in _FAMILIES and table != "scow" and not table.startswith("scow-"):
            chains.setdefault((reply.body[0], table), {})[name] = found
    for (family, table), named in chains.items():
        bases = [name for name, found in named.items() if _hook(found) == FORWARD]
        if bases:
            yield from _read(netlink, family, table, named, bases)


def _hook(chain: dict[int, bytes]) -> int | None:
    hook = attributes(chain.get(4, b""))
    return int.from_bytes(hook[1], "big") if 1 in hook else None


def _read(
    netlink: Netlink, family: int, table: str, named: Mapping[str, dict[int, bytes]], bases: list[str]
) -> Iterator[Table]:
    rules: dict[str, list[Rule]] = {name: [] for name in named}
    sets = _Sets(netlink, family, table)
    listed = list(netlink.dump(Message(_SUBSYSTEM | _GETRULE, 0, header(family) + text(1, table))))
    for reply in listed:
        found = attributes(reply.body, 4)
        if reply.body[0] == family and _text(found[1]) == table:
            handle = int.from_bytes(found[3], "big")
            rule = read_rule(handle, found.get(4, b""), comment_in(found.get(7, b"")), sets.elements)
            rules.setdefault(_text(found[2]), []).append(rule)
    frozen = {name: tuple(each) for name, each in rules.items()}
    about = netlink.get(Message(_SUBSYSTEM | _GETTABLE, 0, header(family) + text(1, table)))
    owned = about is not None and bool(int.from_bytes(attributes(about.body, 4).get(2, b""), "big") & _TABLE_OWNER)
    for base in bases:
        policy = int.from_bytes(named[base].get(5, b"\1"), "big")
        yield Table(_FAMILIES[family], table, base, policy == 0, frozen, owned)


def comment_in(data: bytes) -> str:
    """The comment in a rule's user data: libnftnl's attributes of one byte of type and one of length."""
    while len(data) >= 2:
        kind, length = data[0], data[1]
        if kind == 0:
            return _text(data[2 : 2 + length])
        data = data[2 + length :]
    return ""


class _Sets:
    """A table's sets, each asked for when a rule names it."""

    def __init__(self, netlink: Netlink, family: int, table: str) -> None:
        self._netlink = netlink
        self._header = header(family) + text(1, table)
        self._known: dict[str, Mapping[bytes, Verdict | None] | None] = {}

    def elements(self, name: str) -> Mapping[bytes, Verdict | None] | None:
        """See `_expressions.Elements`."""
        if name not in self._known:
            self._known[name] = self._fetch(name)
        return self._known[name]

    def _fetch(self, name: str) -> Mapping[bytes, Verdict | None] | None:
        about = self._netlink.get(Message(_SUBSYSTEM | _GETSET, 0, self._header + text(2, name)))
        if about is None or int.from_bytes(attributes(about.body, 4).get(3, b""), "big") & _SET_INTERVAL:
            return None
        found: dict[bytes, Verdict | None] = {}
        for reply in self._netlink.dump(Message(_SUBSYSTEM | _GETSETELEM, 0, self._header + text(2, name))):
            for _, element in attribute_list(attributes(reply.body, 4).get(3, b"")):
                parts = attributes(element)
                verdict = attributes(parts.get(2, b"")).get(2)
                key = attributes(parts.get(1, b"")).get(1, b"")
                found[key] = None if verdict is None else read_verdict(attributes(verdict))
        return found


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
