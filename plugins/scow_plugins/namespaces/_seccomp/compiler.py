"""From rules to classic BPF: a binary search over the numbers of system calls, for each architecture of the machine.

The layout, for x86_64 (numbers of x32 programs have bit 30 set):

    load arch
    == x86_64?  load nr;  nr >= 2^30?  search the table of x32
                                 else  search the table of x86_64
    == i386?    load nr;  search the table of i386
    kill

Numbers that have no name yet give ENOSYS, as the kernel would say itself: programs try new calls and fall back.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from scow_plugins.namespaces._seccomp.rules import ERRNO, KILL_PROCESS, Condition, Profile, Rule
from scow_plugins.namespaces._syscalls import X32_BIT, numbers

__all__ = ["compile_profile", "precede"]

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand
Code = tuple[Instruction, ...]

_LOAD, _JUMP, _EQUAL, _GREATER, _GREATER_EQUAL, _AND, _RETURN = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16
_NOT_THERE: Final = ERRNO | errno.ENOSYS
_LONGEST: Final = 255
_ARCHITECTURES: Final = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
_COMPATIBLE: Final = {"x86_64": "i386"}


def compile_profile(profile: Profile, machine: str) -> bytes:
    """The filter program for a machine (`uname -m`). Raises KeyError for a machine without a table.

    On aarch64 32-bit programs are refused altogether: the process is killed, as for any foreign architecture.
    """
    search = _table(profile, machine)
    if machine == "x86_64":
        x32 = _table(profile, "x32", X32_BIT) if profile.compat else _return(_NOT_THERE)
        search = _if(_GREATER_EQUAL, X32_BIT, x32, search)
    code = _return(KILL_PROCESS)
    other = _COMPATIBLE.get(machine)
    if other is not None and profile.compat:
        compat: Code = ((_LOAD, 0, 0, _NUMBER_AT), *_table(profile, other))
        code = _if(_EQUAL, _ARCHITECTURES[other], compat, code)
    native: Code = ((_LOAD, 0, 0, _NUMBER_AT), *search)
    code = ((_LOAD, 0, 0, _ARCH_AT), *_if(_EQUAL, _ARCHITECTURES[machine], native, code))
    return _packed(code)


def precede(rules: Sequence[Rule], program: bytes, machine: str) -> bytes:
    """A compiled program with rules before it, for the machine's own system calls. Raises KeyError.

    The call's number is compared first: for all other calls the answer depends on the number alone, as before, and
    such answers the kernel remembers (Linux 5.11).
    """
    code: Code = ((_LOAD, 0, 0, _NUMBER_AT),)
    for rule in rules:
        block = _block(rule)
        block = ((_LOAD, 0, 0, _ARCH_AT), (_EQUAL, 0, len(block), _ARCHITECTURES[machine]), *block)
        for name in rule.names:
            number = numbers(machine)[name]
            code = (*code, (_EQUAL, 0, len(block) + 1, number), *block, (_LOAD, 0, 0, _NUMBER_AT))
    return _packed(code) + program


def _packed(code: Code) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)


def _return(action: int) -> Code:
    return ((_RETURN, 0, 0, action),)


def _if(test: int, operand: int, then: Code, otherwise: Code) -> Code:
    """A branch; the far side is reached by an unconditional jump when it is too far for a conditional one."""
    if len(otherwise) <= _LONGEST:
        return ((test, len(otherwise), 0, operand), *otherwise, *then)
    return ((test, 0, 1, operand), (_JUMP, 0, 0, len(otherwise)), *otherwise, *then)


def _table(profile: Profile, architecture: str, offset: int = 0) -> Code:
    """A search over all numbers of an architecture, neighbours with the same answer taken together."""
    rules: dict[str, list[Rule]] = {}
    for rule in profile.rules:
        for name in rule.names:
            rules.setdefault(name, []).append(rule)
    default = _return(profile.default)
    answers: dict[int, Code] = {}
    for name, number in numbers(architecture).items():
        answers[number + offset] = _answer(rules[name], profile.default) if name in rules else default
    return _search(_ranges(answers))


def _ranges(answers: dict[int, Code]) -> list[tuple[int, Code]]:
    """(first number, answer), ascending; the first begins at 0. Numbers without a name aren't there."""
    ranges: list[tuple[int, Code]] = [(0, _return(_NOT_THERE))]

    def begin(number: int, answer: Code) -> None:
        if ranges[-1][1] != answer:
            ranges.append((number, answer))

    ordered = sorted(answers)
    for number, following in pairwise((*ordered, ordered[-1] + 2)):
        begin(number, answers[number])
        if following != number + 1:
            begin(number + 1, _return(_NOT_THERE))
    return ranges


def _search(ranges: Sequence[tuple[int, Code]]) -> Code:
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    return _if(_GREATER_EQUAL, ranges[middle][0], _search(ranges[middle:]), _search(ranges[:middle]))


def _answer(rules: Sequence[Rule], default: int) -> Code:
    """One block per rule, in order; needn't keep the number of the call."""
    code: list[Instruction] = []
    for rule in rules:
        code += _block(rule)
        if not rule.conditions:
            return tuple(code)
    return (*code, *_return(default))


def _block(rule: Rule) -> Code:
    """Return the rule's action when all its conditions hold, else go on behind the block."""
    code = _return(rule.action)
    for condition in reversed(rule.conditions):
        code = (*_compare(condition, len(code)), *code)
    return code


def _compare(condition: Condition, rest: int) -> Code:
    """Go on behind the comparison when it holds, else skip `rest` instructions more.

    An argument has two halves: the high one decides unless it is equal.
    """
    at, value, op = _ARGUMENTS_AT + 8 * condition.index, condition.value & (1 << 64) - 1, condition.op
    mask = condition.mask if op == "&==" else (1 << 64) - 1
    high, low = value >> 32, value & 0xFFFFFFFF
    load_high, load_low = _half(at + 4, mask >> 32), _half(at, mask & 0xFFFFFFFF)
    no = rest
    if op in ("==", "&=="):
        return (*load_high, (_EQUAL, 0, len(load_low) + 1 + no, high), *load_low, (_EQUAL, 0, no, low))
    if op == "!=":
        return (*load_high, (_EQUAL, 0, len(load_low) + 1, high), *load_low, (_EQUAL, no, 0, low))
    test = {">": _GREATER, ">=": _GREATER_EQUAL, "<": _GREATER_EQUAL, "<=": _GREATER}[op]
    if op in (">", ">="):
        first = (_GREATER, 2 + len(load_low), 0, high), (_EQUAL, 0, len(load_low) + 1 + no, high)
        return (*load_high, *first, *load_low, (test, 0, no, low))
    first = (_GREATER, 2 + len(load_low) + no, 0, high), (_EQUAL, 0, len(load_low) + 1, high)
    return (*load_high, *first, *load_low, (test, no, 0, low))


def _half(at: int, mask: int) -> Code:
    load: Code = ((_LOAD, 0, 0, at),)
    return load if mask == 0xFFFFFFFF else (*load, (_AND, 0, 0, mask))
