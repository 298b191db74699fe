"""The default filter beside Docker's default profile of today, call by call: each difference is on a list."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scow_plugins.namespaces._caps import DEFAULT, NAMES
from scow_plugins.namespaces._seccomp.default import default_program
from scow_plugins.namespaces._seccomp.rules import ALLOW, ERRNO
from scow_plugins.namespaces._syscalls import X32_BIT, numbers

from .test_seccomp import AARCH64, I386, X86_64, run

RULES = json.loads(Path(__file__).with_name("docker_seccomp.json").read_text())["rules"]
#: Go's names of what a machine runs (runtime.GOARCH and libseccomp's).
ARCHES = {"x86_64": {"amd64", "x86", "x32"}, "aarch64": {"arm64", "arm"}}
TABLES = [
    ("x86_64", "x86_64", X86_64, 0),
    ("x86_64", "i386", I386, 0),
    ("x86_64", "x32", X86_64, X32_BIT),
    ("aarch64", "aarch64", AARCH64, 0),
]
#: First arguments that some rule looks at, and others; CLONE_NEW* one by one.
ARGUMENTS = [*range(64), 0x20000, 0x20008, 0x400000, 0xFFFFFFFF, *(1 << n for n in range(6, 32)), 0x7E020000]

#: docs/security.md says why: (call, first argument), None for any.
STRICTER = {("socket", family) for family in (12, 19, 20, 23, 25, 34, 37)} | {
    ("socket", family) for family in ARGUMENTS if family > 45
}
LOOSER: set[tuple[str, int]] = set()


def rules_for(machine: str, capabilities: frozenset[str]) -> Iterator[dict[str, Any]]:
    for rule in RULES:
        here = not rule.get("arches") or ARCHES[machine] & set(rule["arches"])
        elsewhere = ARCHES[machine] & set(rule.get("not_arches", ()))
        lacks = set(rule.get("caps", ())) - capabilities
        if here and not elsewhere and not lacks and not capabilities & set(rule.get("not_caps", ())):
            yield rule


def holds(when: list[list[Any]], argument: int) -> bool:
    found = True
    for _, op, value, masked in when:
        found = (
            found
            and {
                "EQ": argument == value,
                "LT": argument < value,
                "GT": argument > value,
                "MASKED_EQ": argument & value == masked,
            }[op]
        )
    return found


def dockers(rules: list[dict[str, Any]], argument: int) -> int:
    """What its rules for one call say; what none of them names is refused."""
    for rule in rules:
        if holds(rule.get("when", []), argument):
            return ERRNO | rule["errno"] if "errno" in rule else ALLOW
    return ERRNO | errno.EPERM


@pytest.mark.parametrize("capabilities", [DEFAULT, frozenset(), frozenset(NAMES)], ids=["docker", "none", "all"])
@pytest.mark.parametrize(("machine", "table", "arch", "bit"), TABLES, ids=lambda value: str(value))
def test_differs_only_where_the_list_says(
    machine: str, table: str, arch: int, bit: int, capabilities: frozenset[str]
) -> None:
    program = default_program(capabilities, machine)
    named: dict[str, list[dict[str, Any]]] = {}
    for rule in rules_for(machine, capabilities):
        for name in rule["names"].split():
            named.setdefault(name, []).append(rule)
    stricter, looser = set(), set()
    for name, number in numbers(table).items():
        rules = named.get(name, [])
        for argument in ARGUMENTS if any("when" in rule for rule in rules) else ARGUMENTS[:1]:
            ours, theirs = run(program, arch, number | bit, (argument,)), dockers(rules, argument)
            if ours != theirs:
                (looser if ours == ALLOW else stricter).add((name, argument))
    assert looser == LOOSER
    assert stricter == (STRICTER if "socket" in numbers(table) else set())


def test_every_capability_alone_gives_what_it_gives_there() -> None:
    for capability in NAMES:
        program = default_program(frozenset((capability,)), "x86_64")
        for rule in RULES:
            if capability in rule.get("caps", ()):
                for name in rule["names"].split():
                    number = numbers("x86_64").get(name)
                    assert number is None or run(program, X86_64, number, (0x10000000,)) == ALLOW, (capability, name)


def test_what_is_named_on_purpose() -> None:
    """Allowed there for good reasons (docs/security.md), and refused where it would be a way out."""
    program, table = default_program(DEFAULT, "x86_64"), numbers("x86_64")
    for name in ("name_to_handle_at", "process_vm_readv", "process_vm_writev", "cachestat", "ptrace"):
        assert run(program, X86_64, table[name]) == ALLOW, name
    for name in ("open_by_handle_at", "pidfd_getfd", "kcmp", "process_madvise", "userfaultfd", "io_uring_setup"):
        assert run(program, X86_64, table[name]) == ERRNO | errno.EPERM, name
