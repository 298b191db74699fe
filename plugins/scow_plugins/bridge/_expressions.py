"""What a rule of nf_tables says, read from its expressions as the kernel lists them (linux/netfilter/nf_tables.h).

Registers hold what was loaded from the packet: a function that gives its bytes, or None where they aren't known.
xt matches and targets are those that iptables-nft writes (linux/netfilter/xt_*.h).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

from ._netlink import attribute_list, attributes
from ._verdict import Action, Condition, Packet, Rule, Verdict

Load = Callable[[Packet], bytes | None]
#: The elements of a set or map, key to verdict (a set: to None); None when they can't be compared one by one.
Elements = Callable[[str], Mapping[bytes, Verdict | None] | None]

_VERDICTS: Final[Mapping[int, Action]] = {
    0: "drop", 1: "accept", -1: "continue", -3: "jump", -4: "goto", -5: "return",
}  # fmt: skip
#: Beside these, an expression unknown to us may or may not let the packet go on.
_TRANSPARENT: Final = frozenset({b"counter", b"log", b"notrack", b"last"})
_TRANSPARENT_TARGETS: Final = frozenset({b"LOG", b"NFLOG", b"MARK", b"CONNMARK", b"TCPMSS", b"CT", b"AUDIT"})
_IPV4: Final = 2
_TCP: Final = 6
#: struct xt_conntrack_mtinfo3: flags, inverted flags, states, statuses.
_CONNTRACK: Final = struct.Struct("=HHHH")
_CONNTRACK_AT: Final = 146
_CONNTRACK_STATE: Final = 0x1
_XT_DNAT: Final = 0x80


def read_rule(handle: int, packed: bytes, comment: str, elements: Elements) -> Rule:
    """The rule that a list of expressions makes; `comment` is nft's, iptables' own is among the expressions."""
    reader = _Reader(elements)
    for _, expression in attribute_list(packed):
        parts = attributes(expression)
        reader.take(parts.get(1, b"").rstrip(b"\0"), attributes(parts.get(2, b"")))
    conditions, said = tuple(reader.conditions), comment or reader.comment
    return Rule(handle, conditions, reader.action, reader.target, said, reader.mapped)


class _Reader:
    def __init__(self, elements: Elements) -> None:
        self._elements = elements
        self._registers: dict[int, Load] = {}
        self.conditions: list[Condition] = []
        self.action: Action = "continue"
        self.target = ""
        self.comment = ""
        self.mapped: Callable[[Packet], Verdict | None] | None = None

    def take(self, name: bytes, parts: dict[int, bytes]) -> None:
        """Read the next expression."""
        match name:
            case b"meta":
                self._load(parts, _meta(_number(parts, 2)))
            case b"ct":
                self._load(parts, _connection(_number(parts, 2)))
            case b"payload":
                self._load(parts, _payload(_number(parts, 2), _number(parts, 3), _number(parts, 4)))
            case b"bitwise":
                self._mask(parts)
            case b"cmp":
                self._compare(parts)
            case b"lookup":
                self._look_up(parts)
            case b"match":
                self._xt_match(parts)
            case b"target":
                self._xt_target(parts.get(1, b"").rstrip(b"\0"))
            case b"reject":
                self.action = "drop"
            case b"immediate":
                self._immediate(parts)
            case _:
                if name not in _TRANSPARENT:
                    self.conditions.append(_unknown)

    def _load(self, parts: dict[int, bytes], load: Load) -> None:
        self._registers[_number(parts, 1)] = load

    def _source(self, parts: dict[int, bytes], key: int) -> Load:
        return self._registers.get(_number(parts, key), _nothing)

    def _mask(self, parts: dict[int, bytes]) -> None:
        load, mask, xor = self._source(parts, 1), _value(parts, 4), _value(parts, 5)

        def masked(packet: Packet) -> bytes | None:
            data = load(packet)
            if data is None or len(data) < len(mask) or _number(parts, 6):
                return None
            return bytes((one & two) ^ three for one, two, three in zip(data, mask, xor, strict=False))

        self._registers[_number(parts, 2)] = masked

    def _compare(self, parts: dict[int, bytes]) -> None:
        load, operation, value = self._source(parts, 1), _number(parts, 2), _value(parts, 3)

        def compared(packet: Packet) -> bool | None:
            data = load(packet)
            if data is None or operation > 1:
                return None
            return (data[: len(value)] == value) != bool(operation)

        self.conditions.append(compared)

    def _look_up(self, parts: dict[int, bytes]) -> None:
        load, inverted = self._source(parts, 2), bool(_number(parts, 5))
        known = self._elements(parts.get(1, b"").rstrip(b"\0").decode(errors="replace"))

        def key_of(packet: Packet) -> bytes | None:
            data = load(packet)
            # A concatenation's key is longer than what we have of it.
            return (
                data if data is not None and known is not None and all(len(key) == len(data) for key in known) else None
            )

        def contained(packet: Packet) -> bool | None:
            key = key_of(packet)
            return None if key is None or known is None else (key in known) != inverted

        def verdict(packet: Packet) -> Verdict | None:
            key = key_of(packet)
            return None if key is None or known is None else known.get(key)

        if 3 in parts and _number(parts, 3) != 0:
            self.conditions.append(_unknown)  # a map of data: what it gives is compared later, or not
            return
        self.conditions.append(contained)
        if 3 in parts:
            self.mapped = verdict

    def _xt_match(self, parts: dict[int, bytes]) -> None:
        if parts.get(1, b"").rstrip(b"\0") == b"comment":
            self.comment = parts.get(3, b"").rstrip(b"\0").decode(errors="replace")
        else:
            self.conditions.append(_xt_condition(parts))

    def _xt_target(self, name: bytes) -> None:
        if name in (b"REJECT", b"DROP"):
            self.action = "drop"
        elif name not in _TRANSPARENT_TARGETS:
            self.conditions.append(_unknown)

    def _immediate(self, parts: dict[int, bytes]) -> None:
        if _number(parts, 1) != 0:
            return
        verdict = attributes(attributes(parts.get(2, b"")).get(2, b""))
        self.action, self.target = read_verdict(verdict)


def read_verdict(parts: dict[int, bytes]) -> Verdict:
    """A verdict and the chain that it names."""
    code = struct.unpack("!i", parts[1])[0] if len(parts.get(1, b"")) == 4 else -1
    return _VERDICTS.get(code, "continue"), parts.get(2, b"").rstrip(b"\0").decode(errors="replace")


def _number(parts: dict[int, bytes], key: int) -> int:
    return int.from_bytes(parts.get(key, b""), "big")


def _value(parts: dict[int, bytes], key: int) -> bytes:
    return attributes(parts.get(key, b"")).get(1, b"")


def _nothing(_: Packet) -> bytes | None:
    return None


def _unknown(_: Packet) -> bool | None:
    return None


def _meta(key: int) -> Load:
    match key:
        case 6:
            return lambda packet: packet.entered.encode().ljust(16, b"\0")
        case 7:
            return lambda packet: packet.leaves.encode().ljust(16, b"\0")
        case 15:
            return lambda _: bytes((_IPV4,))
        case 16:
            return lambda _: bytes((_TCP,))
    return _nothing


def _connection(key: int) -> Load:
    match key:
        case 0:
            return lambda packet: struct.pack("=I", packet.state)
        case 2:
            # Whether it was seen in both directions and the like isn't known: only DNAT is ever asked for here.
            return lambda packet: struct.pack("=I", 0x20 if packet.dnat else 0)
    return _nothing


def _payload(base: int, offset: int, length: int) -> Load:
    """The network header's addresses; iptables-nft loads only as many bytes of one as its mask has."""
    for start, whose in ((12, lambda packet: packet.source), (16, lambda packet: packet.destination)):
        if base == 1 and start <= offset and offset + length <= start + 4:

            def load(packet: Packet, whose: Load = whose, start: int = start) -> bytes | None:
                address = whose(packet)
                return None if address is None else address[offset - start : offset - start + length]

            return load
    if base == 1 and (offset, length) == (9, 1):
        return lambda _: bytes((_TCP,))
    return _nothing


def _xt_condition(parts: dict[int, bytes]) -> Condition:
    name, info = parts.get(1, b"").rstrip(b"\0"), parts.get(3, b"")
    if name == b"conntrack" and len(info) >= _CONNTRACK_AT + _CONNTRACK.size:
        flags, inverted, states, _ = _CONNTRACK.unpack_from(info, _CONNTRACK_AT)
        if flags == _CONNTRACK_STATE:
            return lambda packet: conntrack_state(packet, states) != bool(inverted & _CONNTRACK_STATE)
    return _unknown


def conntrack_state(packet: Packet, states: int) -> bool:
    """xt_conntrack's --ctstate: bits of states, and of having been redirected."""
    return bool(packet.state & states & 0xF) or (packet.dnat and bool(states & _XT_DNAT))
