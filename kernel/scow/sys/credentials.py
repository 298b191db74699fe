"""Credentials: capability sets, and seccomp filters as bytes."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Final

from scow.sys.libc import call
from scow.sys.process import Prctl, prctl

__all__ = ["drop_bounding", "has_bounding", "install_filter", "set_capabilities"]

_CAPABILITY_VERSION_3: Final = 0x20080522
_SECCOMP_MODE_FILTER: Final = 2
_AMBIENT_CLEAR_ALL: Final = 4
_INSTRUCTION_SIZE: Final = 8


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def has_bounding(capability: int) -> bool | None:
    """Is this capability (its number) in the bounding set? None: the kernel doesn't know it."""
    try:
        return prctl(Prctl.CAPBSET_READ, capability) == 1
    except OSError:
        return None


def drop_bounding(keep: Iterable[int]) -> None:
    """Take every capability out of the bounding set but those in `keep`, and clear the ambient set. Raises OSError."""
    kept = frozenset(keep)
    prctl(Prctl.CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for number in range(64):
        present = has_bounding(number)
        if present is None:
            return
        if present and number not in kept:
            prctl(Prctl.CAPBSET_DROP, number)


def set_capabilities(*, effective: int | None = None, inheritable: int = 0) -> None:
    """capset(2): the permitted set stays; `effective` (a bit mask, None: all that is permitted) becomes effective."""
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    call("capget", ctypes.byref(header), data)
    for index in range(2):
        permitted = data[index].permitted
        wanted = permitted if effective is None else permitted & (effective >> 32 * index) & 0xFFFFFFFF
        data[index].effective = wanted
        data[index].inheritable = (inheritable >> 32 * index) & 0xFFFFFFFF
    call("capset", ctypes.byref(header), data)


def install_filter(program: bytes) -> None:
    """Put a seccomp filter (struct sock_filter, one after the other) on this process and what it becomes.

    Needs CAP_SYS_ADMIN or no_new_privs. Raises OSError.
    """
    header = _FilterProgram(len(program) // _INSTRUCTION_SIZE, program)
    prctl(Prctl.SET_SECCOMP, ctypes.c_long(_SECCOMP_MODE_FILTER), ctypes.addressof(header))
