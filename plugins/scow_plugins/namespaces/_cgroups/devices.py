"""Which devices a container may use: a list for version 1, the same list as an eBPF program for version 2."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scow.api.linux import attach_device_program
from scow_plugins.namespaces._cgroups.files import write

__all__ = ["ALLOWED", "Allowed", "program", "restrict_v1", "restrict_v2"]


@dataclass(frozen=True, slots=True)
class Allowed:
    """`kind` is b or c; None stands for every number; `access` of r, w and m (mknod)."""

    kind: str
    major: int | None
    minor: int | None
    access: str = "rwm"

    def __str__(self) -> str:
        major, minor = ("*" if number is None else str(number) for number in (self.major, self.minor))
        return f"{self.kind} {major}:{minor} {self.access}"


#: Docker's: any node may be made, but only these may be opened.
ALLOWED: Final = (
    Allowed("c", None, None, "m"),
    Allowed("b", None, None, "m"),
    *(Allowed("c", 1, minor) for minor in (3, 5, 7, 8, 9)),
    *(Allowed("c", 5, minor) for minor in (0, 1, 2)),
    Allowed("c", 136, None),
)


def restrict_v1(directory: str, allowed: Sequence[Allowed] = ALLOWED) -> None:
    """devices.deny, devices.allow. What our own group may not use can't be allowed, and isn't an error."""
    try:
        write(directory, "devices.deny", "a")
        for rule in allowed:
            try:
                write(directory, "devices.allow", str(rule))
            except PermissionError:
                pass
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES):
            raise


_LOAD32, _MOVE, _MOVE_K, _AND_K, _SHIFT_K, _JNE_K, _EXIT = 0x61, 0xBC, 0xB4, 0x54, 0x74, 0x55, 0x95
_ACCESS: Final = {"m": 1, "r": 2, "w": 4}


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, operand: int = 0) -> bytes:
    return struct.pack("<BBhi", code, target | source << 4, offset, operand)


def program(allowed: Sequence[Allowed] = ALLOWED) -> bytes:
    """The list as a BPF_PROG_TYPE_CGROUP_DEVICE program: 1 for allowed, 0 for not.

    r2 is the kind (1 block, 2 character), r3 the access bits, r4 and r5 the device's numbers.
    """
    code = _instruction(_LOAD32, 2, 1, 0) + _instruction(_MOVE, 3, 2)
    code += _instruction(_AND_K, 2, operand=0xFFFF) + _instruction(_SHIFT_K, 3, operand=16)
    code += _instruction(_LOAD32, 4, 1, 4) + _instruction(_LOAD32, 5, 1, 8)
    for rule in allowed:
        code += _rule(rule)
    return code + _instruction(_MOVE_K, 0, operand=0) + _instruction(_EXIT)


def _rule(rule: Allowed) -> bytes:
    tests = [(2, 1 if rule.kind == "b" else 2)]
    tests += [(register, value) for register, value in ((4, rule.major), (5, rule.minor)) if value is not None]
    bits = sum(_ACCESS[letter] for letter in rule.access)
    body = [_instruction(_MOVE, 1, 3), _instruction(_AND_K, 1, operand=7 & ~bits)]
    tail = [_instruction(_MOVE_K, 0, operand=1), _instruction(_EXIT)]
    length = len(tests) + len(body) + 1 + len(tail)
    heads = [_instruction(_JNE_K, r, offset=length - i - 1, operand=v) for i, (r, v) in enumerate(tests)]
    return b"".join((*heads, *body, _instruction(_JNE_K, 1, offset=len(tail), operand=0), *tail))


def restrict_v2(directory: str, allowed: Sequence[Allowed] = ALLOWED) -> None:
    """Attach the program to a group; it goes with the group.

    Where the kernel has no such programs, nodes of other devices can be made with CAP_MKNOD, and opened
    (docs/security). Raises OSError for any other failure.
    """
    try:
        attach_device_program(directory, program(allowed))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
            raise
