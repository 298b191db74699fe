"""ctypes' door to the kernel: one function that turns -1 into OSError."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long

Argument = int | bytes | None | ctypes.c_void_p | ctypes.Array[ctypes.c_char] | object


def _convert(argument: Argument) -> object:
    # ctypes passes plain ints as 32 bits; the kernel reads 64.
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def syscall(number: int, *arguments: Argument) -> int:
    """Call the kernel. bytes are passed as C strings, None as NULL. Raises OSError with errno."""
    result: int = _syscall(ctypes.c_long(number), *map(_convert, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def call(name: str, *arguments: Argument) -> int:
    """Call a function of the C library that returns -1 and sets errno. Raises OSError."""
    result: int = getattr(_libc, name)(*map(_convert, arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result
