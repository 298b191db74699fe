"""What a seccomp profile is made of: data only, resolved for one set of capabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Return values of a filter (seccomp(2)); an errno is or-ed to ERRNO.
KILL_PROCESS: Final = 0x80000000
KILL_THREAD: Final = 0x00000000
TRAP: Final = 0x00030000
ERRNO: Final = 0x00050000
LOG: Final = 0x7FFC0000
ALLOW: Final = 0x7FFF0000

Comparison = Literal["==", "!=", "<", "<=", ">", ">=", "&=="]


@dataclass(frozen=True, slots=True)
class Condition:
    """A comparison of a system call's argument, as 64 unsigned bits. `&==`: argument & mask == value."""

    index: int
    op: Comparison
    value: int
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """System calls that get `action` when all conditions hold. The first rule that fits a call counts."""

    names: tuple[str, ...]
    action: int = ALLOW
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """Rules, and the action for what none of them names. `foreign`: programs of the compatible architectures too."""

    rules: tuple[Rule, ...]
    default: int
    compat: bool = True
