"""What a firewall does with a packet: rules as data, walked as the kernel walks them (nft(8), iptables(8)).

Only as exact as its users need: of a packet some facts are known and others aren't, so that a rule matches, doesn't, or
may. One that may match decides nothing; that it may accept is remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

#: Connection tracking's states as bits (linux/netfilter/nf_conntrack_common.h, NF_CT_STATE_BIT).
INVALID, ESTABLISHED, RELATED, NEW = 1, 2, 4, 8
#: How deep chains may call each other (NFT_JUMP_STACK_SIZE).
_DEPTH_MAX: Final = 16

Action = Literal["accept", "drop", "jump", "goto", "return", "continue"]


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a packet that is to be forwarded: a TCP packet of IPv4."""

    #: In words, for messages.
    what: str
    entered: str
    leaves: str
    state: int = NEW
    dnat: bool = False
    source: bytes | None = None
    destination: bytes | None = None


#: Does a packet match? None: it may.
Condition = Callable[[Packet], bool | None]
#: What to do, and with which chain.
Verdict = tuple[Action, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: all conditions must hold; `handle` names it within its table (the line's number with legacy tables)."""

    handle: int
    conditions: tuple[Condition, ...]
    action: Action
    target: str = ""
    comment: str = ""
    #: In place of `action` and `target`: what a map of verdicts says to a packet; None: it can't be known.
    mapped: Callable[[Packet], Verdict | None] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table's chains, and the base chain in it that decides on forwarded packets."""

    family: Literal["ip", "inet", "legacy"]
    name: str
    base: str
    drops_by_default: bool
    chains: Mapping[str, tuple[Rule, ...]]
    #: Only the program whose socket made it can change it (NFT_TABLE_F_OWNER).
    owned: bool = False

    def __str__(self) -> str:
        return f"{self.name} of iptables-legacy" if self.family == "legacy" else f"{self.family} {self.name}"


@dataclass(frozen=True, slots=True)
class Drop:
    """A packet's end: the rule that drops it, or (None) the base chain's policy."""

    table: Table
    chain: str
    rule: Rule | None
    packet: Packet
    #: The rule of the base chain that led there; None: the policy.
    entry: Rule | None
    #: A rule before it may spare some of these packets.
    partly: bool

    def __str__(self) -> str:
        if self.rule is None:
            return f"the policy of chain {self.chain} in table {self.table}"
        number = self.table.chains[self.chain].index(self.rule) + 1
        return f"rule {number} of chain {self.chain} in table {self.table}"


def judge(table: Table, packet: Packet) -> Drop | None:
    """What drops a packet in a table; None when it passes, as far as is known."""
    walk = _Walk(table, packet)
    for rule, action, chain, by in walk.outcomes(table.base, 0, sure=True):
        if action == "accept":
            return None
        return Drop(table, chain, by, packet, rule, walk.perhaps)
    return Drop(table, table.base, None, packet, None, walk.perhaps) if table.drops_by_default else None


class _Walk:
    """One packet's way through a table."""

    def __init__(self, table: Table, packet: Packet) -> None:
        self._table = table
        self._packet = packet
        self.perhaps = False

    def outcomes(self, chain: str, depth: int, *, sure: bool) -> Iterator[tuple[Rule, Action, str, Rule]]:
        """The decisions that end the way: (rule of this chain, accept or drop, the chain and rule that said it)."""
        for rule in self._table.chains.get(chain, ()) if depth < _DEPTH_MAX else ():
            matches = _all(rule.conditions, self._packet)
            if matches is False:
                continue
            said = (rule.action, rule.target) if rule.mapped is None else rule.mapped(self._packet)
            action, target = said or ("return", "")  # of what isn't known, anything may spare the packet
            certain = sure and matches is True and said is not None
            if action in ("jump", "goto"):
                for _, decided, where, by in self.outcomes(target, depth + 1, sure=certain):
                    yield rule, decided, where, by
            if action in ("accept", "return") and not certain:
                self.perhaps = True
            if not certain:
                continue
            if action in ("accept", "drop"):
                yield rule, action, chain, rule
            if action in ("return", "goto"):
                return


def _all(conditions: tuple[Condition, ...], packet: Packet) -> bool | None:
    matches: bool | None = True
    for condition in conditions:
        one = condition(packet)
        if one is False:
            return False
        matches = matches and one
    return matches
