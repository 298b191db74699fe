"""The rules that make somebody else's firewall pass the packets of our bridge, as requests to nf_tables.

    -i BRIDGE -j ACCEPT                                      out, and between containers
    -o BRIDGE -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT    answers
    -o BRIDGE -m conntrack --ctstate DNAT -j ACCEPT          in, by a published port

In the table `ip filter`, which iptables-nft takes for its own, they are of the expressions that it writes itself: it
refuses to list a table with others. In any other table they are native. A comment says whose they are.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from . import _nft as nft
from ._netlink import CREATE, Message, attr, nest, text
from ._nft import ACCEPT, verdict
from ._ruleset import FAMILY_NUMBERS, header
from ._verdict import Rule, Table

_NEWRULE, _DELRULE = 10 << 8 | 6, 10 << 8 | 8
_APPEND: Final = 0x800
_ANSWERS: Final = 6
_XT_DNAT: Final = 0x80
_CT_STATE, _CT_STATUS = 0, 2
_ENTERED, _LEAVES = 6, 7
#: sizeof(struct xt_conntrack_mtinfo3), padded as XT_ALIGN does, and where its flags are.
_CONNTRACK_SIZE, _CONNTRACK_AT = 168, 146


def comment(bridge: str) -> str:
    """What tells our rules from others'."""
    return f"scow: {bridge}"


def ours(table: Table, bridge: str) -> list[tuple[str, Rule]]:
    """Our rules in a table, each with its chain."""
    return [(chain, rule) for chain, rules in table.chains.items() for rule in rules if rule.comment == comment(bridge)]


def accept(table: Table, bridge: str, before: Rule | None, *, native: bool = False) -> Iterator[Message]:
    """Put the rules into a table's base chain, in front of a rule or (None) at its end; earlier ones of ours go."""
    yield from remove(table, ours(table, bridge))
    place = b"" if before is None else attr(6, struct.pack("!Q", before.handle))
    native = native or (table.family, table.name) != ("ip", "filter")
    for expressions in _native_rules(bridge) if native else _xt_rules(bridge):
        body = _rule(table, table.base) + nest(4, *expressions) + (_user_data(bridge) if native else b"")
        # Without a place the flag decides: at the end. With one: in front of it, in the order that we send.
        yield Message(_NEWRULE, CREATE | (0 if place else _APPEND), body + place)


def remove(table: Table, rules: Iterable[tuple[str, Rule]]) -> Iterator[Message]:
    """Take rules out of a table."""
    for chain, rule in rules:
        yield Message(_DELRULE, 0, _rule(table, chain) + attr(3, struct.pack("!Q", rule.handle)))


def _rule(table: Table, chain: str) -> bytes:
    return header(FAMILY_NUMBERS[table.family]) + text(1, table.name) + text(2, chain)


def _user_data(bridge: str) -> bytes:
    """The comment as nft keeps it; iptables-nft has a match for that."""
    data = comment(bridge).encode() + b"\0"
    return attr(7, bytes((0, len(data))) + data)


def _native_rules(bridge: str) -> Iterator[tuple[bytes, ...]]:
    accepted = verdict(ACCEPT)
    yield nft.entered_by(bridge), nft.counter(), accepted
    yield nft.leaves_by(bridge), nft.connection(_CT_STATE, _ANSWERS, any_of=True), nft.counter(), accepted
    yield nft.leaves_by(bridge), nft.connection(_CT_STATUS, nft.STATUS_DNAT, any_of=True), nft.counter(), accepted


def _xt_rules(bridge: str) -> Iterator[tuple[bytes, ...]]:
    rest = (nft.match("comment", 0, comment(bridge).encode().ljust(256, b"\0")), nft.counter(), verdict(ACCEPT))
    yield _device(_ENTERED, bridge), *rest
    for states in (_ANSWERS, _XT_DNAT):
        yield _device(_LEAVES, bridge), _conntrack(states), *rest


def _device(key: int, bridge: str) -> bytes:
    """A device's name as iptables-nft compares it: with one zero, not sixteen bytes."""
    return nft.compare_meta(key, bridge.encode() + b"\0")


def _conntrack(states: int) -> bytes:
    info = bytearray(_CONNTRACK_SIZE)
    struct.pack_into("=HHH", info, _CONNTRACK_AT, 1, 0, states)
    return nft.match("conntrack", 3, bytes(info))
