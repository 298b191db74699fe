"""The filter table of the older ip_tables, by way of the program `iptables`: the kernel has no messages for it.

/proc/net/ip_tables_names names a table once a program has asked for it; reading that file makes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from ._verdict import ESTABLISHED, INVALID, NEW, RELATED, Action, Condition, Packet, Rule, Table

_NAMES = Path("/proc/net/ip_tables_names")
#: Seconds for the program, which waits this long for the lock of another one (-w).
_PATIENCE: Final = 5
_STATES: Final[Mapping[str, int]] = {"INVALID": INVALID, "ESTABLISHED": ESTABLISHED, "RELATED": RELATED, "NEW": NEW}
_ACTIONS: Final[Mapping[str, Action]] = {
    "ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return",
}  # fmt: skip
_TRANSPARENT: Final = frozenset({"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "AUDIT"})


def present() -> bool:
    """Is there a legacy filter table in this network namespace?"""
    try:
        return "filter" in _NAMES.read_text().split()
    except OSError:
        return False


def program() -> str | None:
    """The program for legacy tables, or None. One named plainly `iptables` may be that for nf_tables."""
    import shutil

    if found := shutil.which("iptables-legacy"):
        return found
    plain = shutil.which("iptables")
    if plain is None:
        return None
    said = _run(plain, "--version")
    return None if said is None or "nf_tables" in said else plain


def _run(*command: str) -> str | None:
    import subprocess  # most machines have no legacy tables

    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=2 * _PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def tables() -> Iterator[Table]:
    """The filter table, if there is one and a program to read it with."""
    if present() and (name := program()) and (said := _run(name, "-w", str(_PATIENCE), "-S")) is not None:
        yield parse(said)


def parse(said: str) -> Table:
    """Read what `iptables -S` says."""
    import shlex

    chains: dict[str, list[Rule]] = {}
    policy = "ACCEPT"
    for line in said.splitlines():
        match shlex.split(line):
            case ["-P", chain, target]:
                chains[chain] = []
                policy = target if chain == "FORWARD" else policy
            case ["-N", chain]:
                chains[chain] = []
            case ["-A", chain, *words]:
                rules = chains.setdefault(chain, [])
                rules.append(_rule(len(rules) + 1, words))
    return Table("legacy", "filter", "FORWARD", policy == "DROP", {name: tuple(each) for name, each in chains.items()})


def _rule(number: int, words: Sequence[str]) -> Rule:
    conditions: list[Condition] = []
    action: Action = "continue"
    target = comment = ""
    rest, negated = iter(words), False
    for word in rest:
        if word == "!":
            negated = True
            continue
        value = next(rest, "")
        if word in ("-j", "-g"):
            action, target = _action(word, value)
            break  # what follows are the target's own options
        if word == "--comment":
            comment = value
        elif word != "-m" or value not in ("comment", "conntrack", "state", "tcp"):
            conditions.append(_negated(_condition(word, value), negated=negated))
        negated = False
    if action == "continue" and target:
        conditions.append(lambda _: None)
    return Rule(number, tuple(conditions), action, target, comment)


def _action(word: str, value: str) -> tuple[Action, str]:
    if value in _ACTIONS:
        return _ACTIONS[value], ""
    if value in _TRANSPARENT:
        return "continue", ""
    return ("goto" if word == "-g" else "jump"), value


def _negated(condition: Condition, *, negated: bool) -> Condition:
    def other(packet: Packet) -> bool | None:
        said = condition(packet)
        return None if said is None else not said

    return other if negated else condition


def _condition(word: str, value: str) -> Condition:
    match word:
        case "-i":
            return _device(lambda packet: packet.entered, value)
        case "-o":
            return _device(lambda packet: packet.leaves, value)
        case "-s":
            return _address(lambda packet: packet.source, value)
        case "-d":
            return _address(lambda packet: packet.destination, value)
        case "-p":
            return lambda _: value == "tcp"
        case "--ctstate" | "--state":
            states = sum(_STATES.get(name, 0) for name in value.split(","))
            dnat = "DNAT" in value.split(",")
            return lambda packet: bool(packet.state & states) or (dnat and packet.dnat)
    return lambda _: None


def _device(whose: Callable[[Packet], str], value: str) -> Condition:
    if value.endswith("+"):
        return lambda packet: whose(packet).startswith(value[:-1])
    return lambda packet: whose(packet) == value


def _address(whose: Callable[[Packet], bytes | None], value: str) -> Condition:
    network = IPv4Network(value, strict=False)

    def inside(packet: Packet) -> bool | None:
        address = whose(packet)
        return None if address is None else IPv4Address(address) in network

    return inside


def accept(table: Table, bridge: str, comment: str, before: Rule | None) -> None:
    """Put our rules into FORWARD, in front of a rule or at its end; earlier ones of ours go."""
    remove(comment)
    if (name := program()) is None:
        return
    number = before.handle if before is not None else 0
    # Without the removed ones in front of it, its number is smaller.
    number -= sum(rule.comment == comment and rule.handle < number for rule in table.chains["FORWARD"])
    for n, words in enumerate(_accepting(bridge)):
        place = ("-A", "FORWARD") if before is None else ("-I", "FORWARD", str(number + n))
        _run(name, "-w", str(_PATIENCE), *place, *words, "-m", "comment", "--comment", comment, "-j", "ACCEPT")


def _accepting(bridge: str) -> Iterator[tuple[str, ...]]:
    yield "-i", bridge
    for states in ("RELATED,ESTABLISHED", "DNAT"):
        yield "-o", bridge, "-m", "conntrack", "--ctstate", states


def remove(comment: str) -> None:
    """Take our rules out of the filter table, from the last to the first, for numbers move up."""
    if not present() or (name := program()) is None:
        return
    for table in tables():
        for chain, rules in table.chains.items():
            for rule in reversed(rules):
                if rule.comment == comment:
                    _run(name, "-w", str(_PATIENCE), "-D", chain, str(rule.handle))
