"""The program that stands between the interpreter and the container's command.

Why: `#!/proc/self/exe`, or a command that is a link to it, names the program of whoever calls execve(2). Were that
the interpreter, the container would get an open file of the host's python. So the child becomes this program
first: a sealed file in memory that does nothing but execve(2) its arguments and, if that fails, write the result to
descriptor 3:

    fcntl(3, F_SETFD, FD_CLOEXEC)            fails: somebody else started us, end
    r = execve(argv[0], &argv[1], envp)
    write(3, &r, 8)                          r = -errno
    exit_group(127)
"""

from __future__ import annotations

import os
import struct
from typing import Final

from scow.api import Unsupported
from scow.api.linux import sealed_program

__all__ = ["REPORT_FD", "elf", "stub"]

#: Where the program reports a failed execve(2).
REPORT_FD: Final = 3

_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
# The comments name what each piece does; tests/unit/namespaces/test_stub.py disassembles them where a tool is there.
_CODE: Final = {
    "x86_64": bytes.fromhex(
        "b848000000 bf03000000 be02000000 ba01000000 0f05"  # eax=72 edi=3 esi=2 edx=1 syscall
        "85c0 752f"  # test eax,eax; jnz exit
        "488b1c24 488b7c2408 488d742410 488d54dc10"  # rbx=argc rdi=argv[0] rsi=&argv[1] rdx=envp
        "b83b000000 0f05"  # eax=59 syscall
        "50 bf03000000 4889e6 ba08000000 b801000000 0f05"  # push rax; edi=3 rsi=rsp edx=8 eax=1 syscall
        "bf7f000000 b8e7000000 0f05"  # edi=127 eax=231 syscall
    ),
    "aarch64": bytes.fromhex(
        "280380d2 600080d2 410080d2 220080d2 010000d4"  # x8=25 x0=3 x1=2 x2=1 svc
        "a00100b5"  # cbnz x0, exit
        "e90340f9 e00740f9 e1430091 220c098b"  # x9=argc x0=argv[0] x1=&argv[1] x2=envp
        "a81b80d2 010000d4"  # x8=221 svc
        "e00300f9 600080d2 e1030091 020180d2 080880d2 010000d4"  # [sp]=x0; x0=3 x1=sp x2=8 x8=64 svc
        "e00f80d2 c80b80d2 010000d4"  # x0=127 x8=94 svc
    ),
}
_ORIGIN: Final = 0x400000
_HEADER, _SEGMENT = 64, 56


def elf(machine: str) -> bytes:
    """The program as a static ELF file for x86_64 or aarch64. Raises KeyError."""
    code = _CODE[machine]
    start = _HEADER + 2 * _SEGMENT
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, _MACHINES[machine], 1, _ORIGIN + start, _HEADER, 0, 0, _HEADER, _SEGMENT, 2, 64, 0, 0
    )
    size = start + len(code)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _ORIGIN, _ORIGIN, size, size, 0x10000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


def stub() -> int:
    """A descriptor of the program for this machine; the caller closes it. Raises Unsupported."""
    try:
        return sealed_program("scow-exec", elf(os.uname().machine))
    except OSError as error:
        raise Unsupported(
            f"this machine refuses programs in memory: {error.strerror}",
            hint="set the sysctl vm.memfd_noexec to 0 or 1",
        ) from None
