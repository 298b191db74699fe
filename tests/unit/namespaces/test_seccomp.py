"""The filter, run by an interpreter, says for every number what the rules say."""

from __future__ import annotations

import errno
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Invalid, NotFound, Unsupported
from scow_plugins.namespaces._caps import DEFAULT, NAMES
from scow_plugins.namespaces._seccomp.choose import choose_program
from scow_plugins.namespaces._seccomp.compiler import compile_profile
from scow_plugins.namespaces._seccomp.default import default_profile, default_program
from scow_plugins.namespaces._seccomp.exempt import MOST, exempt
from scow_plugins.namespaces._seccomp.profile import parse_profile
from scow_plugins.namespaces._seccomp.rules import ALLOW, ERRNO, KILL_PROCESS, Condition, Profile, Rule
from scow_plugins.namespaces._syscalls import X32_BIT, numbers


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = _load("bpf_machine").run

X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
NO, NOT_THERE = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
_TABLES = (("x86_64", "x86_64", X86_64, 0), ("x86_64", "i386", I386, 0), ("x86_64", "x32", X86_64, X32_BIT))


@pytest.mark.parametrize("capabilities", [DEFAULT, frozenset(), frozenset(NAMES)], ids=["docker", "none", "all"])
@pytest.mark.parametrize(("machine", "table", "arch", "bit"), [*_TABLES, ("aarch64", "aarch64", AARCH64, 0)])
def test_every_number_gets_what_the_rules_say(
    machine: str, table: str, arch: int, bit: int, capabilities: frozenset[str]
) -> None:
    program = default_program(capabilities, machine)
    always = {
        n
        for r in default_profile(capabilities, machine).rules
        if not r.conditions
        for n in r.names
        if r.action == ALLOW
    }
    conditional = {"socket", "personality", "clone", "clone3"}
    named = {number: name for name, number in numbers(table).items()}
    for number in range(700):
        name = named.get(number)
        if name in conditional and name not in always:
            continue
        expected = NOT_THERE if name is None else ALLOW if name in always else NO
        assert run(program, arch, number | bit) == expected, (name, number)


def test_foreign_architectures_are_killed() -> None:
    assert run(default_program(DEFAULT, "x86_64"), AARCH64, 0) == KILL_PROCESS
    assert run(default_program(DEFAULT, "aarch64"), X86_64, 0) == KILL_PROCESS
    assert run(default_program(DEFAULT, "aarch64"), ARM, 0) == KILL_PROCESS


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("socket", (1,), ALLOW),
        ("socket", (11,), ALLOW),
        ("socket", (12,), NO),
        ("socket", (16,), ALLOW),
        ("socket", (38,), NO),
        ("socket", (40,), NO),
        ("socket", (46,), NO),
        ("socket", (1 | 1 << 32,), NO),
        ("personality", (0,), ALLOW),
        ("personality", (0x20008,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0400000,), NO),
        ("clone", (17,), ALLOW),
        ("clone", (17 | 1 << 40,), ALLOW),
        ("clone", (0x10000000,), NO),
        ("clone", (0x02000011,), NO),
        ("clone3", (), NOT_THERE),
        ("unshare", (), NO),
        ("mount", (), NO),
        ("keyctl", (), NO),
        ("ptrace", (), ALLOW),
        ("chroot", (), ALLOW),
    ],
)
def test_conditions_of_the_default_profile(name: str, arguments: tuple[int, ...], expected: int) -> None:
    program = default_program(DEFAULT, "x86_64")
    assert run(program, X86_64, numbers("x86_64")[name], arguments) == expected


def test_capabilities_allow_more() -> None:
    every = default_program(frozenset(NAMES), "x86_64")
    for name in ("clone", "clone3", "unshare", "mount", "bpf", "reboot", "settimeofday", "acct"):
        assert run(every, X86_64, numbers("x86_64")[name], (0x10000000,)) == ALLOW, name
    for name in ("keyctl", "add_key", "userfaultfd", "io_uring_setup", "kexec_load"):
        assert run(every, X86_64, numbers("x86_64")[name]) == NO, name


_HALVES = st.sampled_from([0, 1, 5, 0xFFFFFFFF, 0x80000000])
_WORDS = st.one_of(st.integers(0, 2**64 - 1), st.builds(lambda high, low: high << 32 | low, _HALVES, _HALVES))
_CONDITIONS = st.builds(
    Condition, st.integers(0, 5), st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "&=="]), _WORDS, _WORDS
)
_ACTIONS = st.sampled_from([ALLOW, NO, NOT_THERE, KILL_PROCESS])


def _holds(condition: Condition, arguments: tuple[int, ...]) -> bool:
    value, wanted = arguments[condition.index], condition.value
    return {
        "==": value == wanted,
        "!=": value != wanted,
        "<": value < wanted,
        "<=": value <= wanted,
        ">": value > wanted,
        ">=": value >= wanted,
        "&==": value & condition.mask == wanted,
    }[condition.op]


@given(
    rules=st.lists(
        st.builds(Rule, st.just(("read",)), _ACTIONS, st.lists(_CONDITIONS, max_size=3).map(tuple)), max_size=4
    ),
    arguments=st.tuples(*[_WORDS] * 6),
    default=_ACTIONS,
)
def test_conditions_mean_what_they_say(rules: list[Rule], arguments: tuple[int, ...], default: int) -> None:
    program = compile_profile(Profile(tuple(rules), default), "aarch64")
    expected = next((rule.action for rule in rules if all(_holds(c, arguments) for c in rule.conditions)), default)
    assert run(program, AARCH64, numbers("aarch64")["read"], arguments) == expected


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", X86_64), ("aarch64", AARCH64)])
def test_the_exemption_is_for_who_has_the_token(machine: str, arch: int) -> None:
    token, other = 0x1122334455667788, 0x1122334455667789
    denied = compile_profile(Profile((), NO), machine)
    program = exempt(denied, token, machine)
    table = numbers(machine)
    assert len(program) // 8 <= 4096 // 8
    assert len(program) - len(denied) < MOST * 8
    exempted = {
        "clone": (0x8011,),
        "prctl": (4,),
        "ioctl": (0, 0x540E),
        "close_range": (3, 0xFFFFFFFF, 4),
        "recvmmsg": (3,),
        "setsid": (),
    }
    for name, number in table.items():
        arguments = exempted.get(name, ())
        padded = (*arguments, *(0,) * (5 - len(arguments)))
        expected = ALLOW if name in exempted else NO
        assert run(program, arch, number, (*padded, token)) == expected, name
        for wrong in (0, other, token & 0xFFFFFFFF, token >> 32):
            assert run(program, arch, number, (*padded, wrong)) == NO, name
        assert run(program, I386, number, (*padded, token)) == run(denied, I386, number)
    assert run(program, arch, table["prctl"], (1, 9, 0, 0, 0, token)) == ALLOW
    assert run(program, arch, table["prctl"], (22, 2, 0, 0, 0, token)) == NO
    assert run(program, arch, table["clone"], (0x10000011, 0, 0, 0, 0, token)) == NO


@given(st.integers(0, 500), st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
def test_without_the_token_nothing_changes(number: int, arguments: list[int]) -> None:
    program = default_program(DEFAULT, "x86_64")
    with_exemption = exempt(program, 2**64 - arguments[5] - 1, "x86_64")
    for arch in (X86_64, I386, AARCH64):
        assert run(with_exemption, arch, number, tuple(arguments)) == run(program, arch, number, tuple(arguments))


def test_reads_dockers_json() -> None:
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": None}],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
                {"names": ["getuid"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["getgid"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
                {"names": ["getppid"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                {
                    "names": ["socket"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 3, "valueTwo": 1}],
                },
            ],
        }
    )
    table = numbers("x86_64")
    program = compile_profile(parse_profile(text, DEFAULT, "x86_64"), "x86_64")
    assert run(program, X86_64, table["write"]) == ALLOW
    assert run(program, X86_64, table["mount"]) == ERRNO | 38
    assert run(program, X86_64, table["getpid"]) == ERRNO | 38
    assert run(program, X86_64, table["kill"]) == ERRNO | 13
    assert run(program, X86_64, table["getuid"]) == ALLOW
    assert run(program, X86_64, table["getgid"]) == ERRNO | 38
    assert run(program, X86_64, table["getppid"]) == ERRNO | 38
    assert run(program, X86_64, table["socket"], (5,)) == ALLOW
    assert run(program, X86_64, table["socket"], (2,)) == ERRNO | 38
    assert run(program, I386, 3) == KILL_PROCESS
    assert run(program, X86_64, table["read"] | X32_BIT) == NOT_THERE


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", Invalid),
        ("{}", Invalid),
        ('{"defaultAction": "SCMP_ACT_TRACE"}', Unsupported),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]}', Invalid),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 7}', Invalid),
        ("/no/such/profile.json", NotFound),
    ],
)
def test_says_what_is_wrong_with_a_profile(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        choose_program(text, DEFAULT)


def test_unconfined_is_no_program() -> None:
    assert choose_program("unconfined", DEFAULT) is None
