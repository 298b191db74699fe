"""Docker's seccomp profiles: JSON into rules, for one set of capabilities and one machine. Pure."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from scow.api import Invalid, Unsupported
from scow_plugins.namespaces._seccomp.rules import (
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    TRAP,
    Comparison,
    Condition,
    Profile,
    Rule,
)

__all__ = ["parse_profile"]

_ACTIONS: Final = {
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_TRAP": TRAP,
    "SCMP_ACT_LOG": LOG,
}
_COMPARISONS: Final[dict[str, Comparison]] = {
    "SCMP_CMP_EQ": "==",
    "SCMP_CMP_NE": "!=",
    "SCMP_CMP_LT": "<",
    "SCMP_CMP_LE": "<=",
    "SCMP_CMP_GT": ">",
    "SCMP_CMP_GE": ">=",
    "SCMP_CMP_MASKED_EQ": "&==",
}
#: Go's names of architectures, which the profiles use in includes and excludes.
_ARCHES: Final = {"x86_64": {"amd64", "x86", "x32"}, "aarch64": {"arm64", "arm"}}
_NATIVE: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def parse_profile(text: str, capabilities: Collection[str], machine: str) -> Profile:
    """A profile as Docker's --security-opt seccomp=FILE takes it. Raises Invalid, Unsupported."""
    try:
        document = json.loads(text)
        if not isinstance(document, dict):
            raise Invalid("seccomp profile: not an object")
        rules: list[Rule] = []
        for entry in document.get("syscalls") or ():
            if _applies(entry, capabilities, machine):
                rules.append(_rule(entry))
        default = _action(document["defaultAction"], document.get("defaultErrnoRet"))
        return Profile(tuple(rules), default, _compat(document, machine))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Invalid(f"seccomp profile: {type(error).__name__}: {error}", hint="it must be Docker's format") from None


def _compat(document: Mapping[str, Any], machine: str) -> bool:
    """Are the programs of the machine's 32-bit architectures covered too?"""
    native = _NATIVE.get(machine)
    for entry in document.get("archMap") or ():
        if entry.get("architecture") == native:
            return bool(entry.get("subArchitectures"))
    return len(document.get("architectures") or ()) > 1


def _applies(entry: Mapping[str, Any], capabilities: Collection[str], machine: str) -> bool:
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    arches = _ARCHES.get(machine, set())
    if not set(includes.get("caps") or ()) <= set(capabilities):
        return False
    if includes.get("arches") and not arches & set(includes["arches"]):
        return False
    if not _is_at_least(includes.get("minKernel") or "0.0"):
        return False
    if excludes.get("minKernel") and _is_at_least(excludes["minKernel"]):
        return False
    return not (set(excludes.get("caps") or ()) & set(capabilities) or arches & set(excludes.get("arches") or ()))


def _is_at_least(version: str) -> bool:
    """Is this machine's kernel that new? `version` is Docker's: major.minor."""
    major, _, minor = version.partition(".")
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return found is not None and (int(found[1]), int(found[2])) >= (int(major), int(minor or 0))


def _rule(entry: Mapping[str, Any]) -> Rule:
    names = entry.get("names") or [entry["name"]]
    conditions = tuple(_condition(argument) for argument in entry.get("args") or ())
    return Rule(tuple(names), _action(entry["action"], entry.get("errnoRet")), conditions)


def _condition(argument: Mapping[str, Any]) -> Condition:
    index, op, value = argument["index"], _COMPARISONS[argument["op"]], argument["value"]
    if not 0 <= index <= 5:
        raise Invalid(f"seccomp profile: a system call has no argument {index}")
    if op == "&==":
        return Condition(index, op, argument.get("valueTwo", 0), value)
    return Condition(index, op, value)


def _action(name: str, number: int | None) -> int:
    if name not in _ACTIONS:
        raise Unsupported(f"seccomp profile: action {name!r} isn't supported", hint=f"use one of {sorted(_ACTIONS)}")
    action = _ACTIONS[name]
    return action | (errno.EPERM if number is None else number & 0xFFFF) if action == ERRNO else action
