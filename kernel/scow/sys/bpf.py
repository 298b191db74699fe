"""eBPF: loading a device program and attaching it to a control group of version 2 (bpf(2), Linux 4.15)."""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

from scow.sys.libc import syscall

__all__ = ["attach_device_program"]

_BPF: Final = {"x86_64": 321}.get(os.uname().machine, 280)
_PROG_LOAD, _PROG_ATTACH = 5, 8
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE_ATTACH = 15, 6
_ATTRIBUTES_SIZE: Final = 128
_INSTRUCTION_SIZE: Final = 8


def attach_device_program(directory: str, code: bytes) -> None:
    """Let a BPF_PROG_TYPE_CGROUP_DEVICE program decide about devices in a group; it goes with the group.

    Raises OSError (ENOSYS, EINVAL, EPERM: this kernel has none, or not for us).
    """
    buffer, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"Apache-2.0")
    addresses = ctypes.addressof(buffer), ctypes.addressof(licence)
    program = _bpf(_PROG_LOAD, struct.pack("<IIQQ", _CGROUP_DEVICE_PROGRAM, len(code) // _INSTRUCTION_SIZE, *addresses))
    try:
        group = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_PROG_ATTACH, struct.pack("<IIII", group, program, _CGROUP_DEVICE_ATTACH, 0))
        finally:
            os.close(group)
    finally:
        os.close(program)


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, _ATTRIBUTES_SIZE)
    return syscall(_BPF, command, buffer, _ATTRIBUTES_SIZE)
