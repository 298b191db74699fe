"""A small interpreter of classic BPF as seccomp uses it, written from bpf(4) and seccomp(2), not from the compiler."""

from __future__ import annotations

import struct

_DATA = struct.Struct("<IIQ6Q")


def run(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the filter answers; raises AssertionError for a program that the kernel wouldn't load."""
    data = _DATA.pack(number, arch, 0, *(*arguments, *(0,) * (6 - len(arguments))))
    code = list(struct.iter_unpack("<HBBI", program))
    assert 0 < len(code) <= 4096
    at, accumulator = 0, 0
    while True:
        op, true, false, k = code[at]
        at += 1
        match op:
            case 0x20:
                assert k % 4 == 0
                assert k <= 60
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x54:
                accumulator &= k
            case 0x05:
                at += k
            case 0x15:
                at += true if accumulator == k else false
            case 0x25:
                at += true if accumulator > k else false
            case 0x35:
                at += true if accumulator >= k else false
            case 0x06:
                return k
            case _:
                raise AssertionError(f"unknown instruction {op:#x}")
        assert at < len(code), "jumped out of the program"
