"""The program that stands between the interpreter and the container's command.

Two things ask for it. `#!/proc/self/exe`, or a command that is a link to it, names the program of whoever calls
execve(2): were that the interpreter, the container would get an open file of the host's python. And a process that
joins a container is seen by those inside from the moment it is in their PID namespace: with CAP_SYS_PTRACE they reach
its memory, its root and its descriptors, dumpable or not, because they share the host's user namespace.

So the child becomes this program first: a sealed file in memory, with the command's arguments and environment and
nothing else. A child that joins is still outside of the PID namespace then (pid_namespaces(7): setns(2) concerns the
children only), already with the command's user, capabilities and filter; what the program makes inside is a copy of
itself, and a child of the supervisor (CLONE_PARENT):

    recvmmsg(3, sp, 0)                           fails: somebody else started us, end
    close_range(3, -1, CLOSE_RANGE_CLOEXEC)
    prctl(PR_SET_DUMPABLE, 0)                    until execve(2): who has no CAP_SYS_PTRACE can't trace it
    if it joins:
        r = clone(CLONE_PARENT | SIGCHLD)
        r != 0: report                           r = the new process, or -errno
        prctl(PR_SET_PDEATHSIG, SIGKILL)         forgotten by clone(2)
        recvmmsg(3, …) one byte, else end        the supervisor knows us; or it is gone
        setsid()                                 the old session is outside
        if it has a terminal: r = ioctl(0, TIOCSCTTY, 0), r != 0: report
    r = execve(argv[0], &argv[1], envp)
    report: write(3, &r, 8)
    exit_group(127)

The sixth argument of each system call is the token of _seccomp/exempt.py. recvmmsg(2) and close_range(2) do what
read(2) and fcntl(2) could because hardly any program calls them, so that no call that matters to speed is in there.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from scow.api import Unsupported
from scow.api.linux import sealed_program

__all__ = ["CLONE_FLAGS", "REPORT_FD", "Orders", "elf", "stub"]

#: Where the program reports.
REPORT_FD: Final = 3
#: CLONE_PARENT | SIGCHLD.
CLONE_FLAGS: Final = 0x8000 | 17


@dataclass(frozen=True, slots=True)
class Orders:
    """What one copy of the program is to do. `token` is 64 bits that nobody else knows."""

    token: int = 0
    joins: bool = False
    terminal: bool = False

    def packed(self) -> bytes:
        """As the program reads it behind its code."""
        return struct.pack("<QQ", self.token, self.joins | self.terminal << 1)


_MACHINES: Final = {"x86_64": 62, "aarch64": 183}
# The comments name what each piece does; tests/unit/namespaces/test_stub.py disassembles them where a tool is there.
_CODE: Final = {
    "x86_64": bytes.fromhex(
        "4889e3 4c8b0d1e010000 8b2d20010000"  # rbx=rsp r9=token ebp=flags
        "b82b010000 bf03000000 4889e6 31d2 4531d2 4531c0 0f05"  # eax=299 edi=3 rsi=rsp edx=r10d=r8d=0 syscall
        "85c0 0f85ed000000"  # test eax,eax; jnz exit
        "b8b4010000 bf03000000 beffffffff ba04000000 0f05"  # eax=436 edi=3 esi=-1 edx=4 syscall
        "85c0 0f85cf000000"  # test eax,eax; jnz exit
        "b89d000000 bf04000000 31f6 0f05"  # eax=157 edi=4 esi=0 syscall
        "85c0 0f85b9000000"  # test eax,eax; jnz exit
        "40f6c501 0f8483000000"  # test bpl,1; jz run
        "b838000000 bf11800000 31f6 31d2 4531d2 4531c0 0f05"  # eax=56 edi=0x8011 esi=edx=r10d=r8d=0 syscall
        "4885c0 757f"  # test rax,rax; jnz report
        "b89d000000 bf01000000 be09000000 0f05"  # eax=157 edi=1 esi=9 syscall
        "6a00 4889e0 6a01 50 4889e0"  # a buffer, and struct iovec; rax=iovec
        "6a00 6a00 6a00 6a00 6a01 50 6a00 6a00"  # struct mmsghdr
        "b82b010000 bf03000000 4889e6 ba01000000 0f05"  # eax=299 edi=3 rsi=rsp edx=1 syscall (r10=r8=0)
        "837c243801 754e"  # cmp msg_len,1; jne exit
        "b870000000 0f05"  # eax=112 syscall
        "40f6c502 7415"  # test bpl,2; jz run
        "b810000000 31ff be0e540000 31d2 0f05"  # eax=16 edi=0 esi=0x540e edx=0 syscall
        "4885c0 7517"  # test rax,rax; jnz report
        "488b0b 488b7b08 488d7310 488d54cb10"  # run: rcx=argc rdi=argv[0] rsi=&argv[1] rdx=envp
        "b83b000000 0f05"  # eax=59 syscall
        "50 b801000000 bf03000000 4889e6 ba08000000 0f05"  # report: push rax; eax=1 edi=3 rsi=rsp edx=8 syscall
        "b8e7000000 bf7f000000 0f05"  # exit: eax=231 edi=127 syscall
    ),
    "aarch64": bytes.fromhex(
        "f3030091 a5090058 d4090058"  # x19=sp x5=token x20=flags
        "600080d2 e1030091 020080d2 030080d2 040080d2 681e80d2 010000d4"  # x0=3 x1=sp x2..x4=0 x8=243 svc
        "200800b5"  # cbnz x0, exit
        "600080d2 01008012 820080d2 883680d2 010000d4"  # x0=3 w1=-1 x2=4 x8=436 svc
        "600700b5"  # cbnz x0, exit
        "800080d2 010080d2 e81480d2 010000d4"  # x0=4 x1=0 x8=167 svc
        "c00600b5"  # cbnz x0, exit
        "34050036"  # tbz x20, 0, run
        "200290d2 010080d2 020080d2 030080d2 040080d2 881b80d2 010000d4"  # x0=0x8011 x1..x4=0 x8=220 svc
        "e00400b5"  # cbnz x0, report
        "200080d2 210180d2 e81480d2 010000d4"  # x0=1 x1=9 x8=167 svc
        "290080d2 ff7fbfa9 ea030091 ea27bfa9 ea030091"  # a buffer, and struct iovec; x10=iovec
        "ff7fbfa9 ff7fbfa9 ea27bfa9 ff7fbfa9"  # struct mmsghdr
        "600080d2 e1030091 220080d2 030080d2 040080d2 681e80d2 010000d4"  # x0=3 x1=sp x2=1 x3=x4=0 x8=243 svc
        "e93b40b9 3f050071 c1020054"  # cmp msg_len,1; b.ne exit
        "a81380d2 010000d4"  # x8=157 svc
        "f4000836"  # tbz x20, 1, run
        "000080d2 c1818ad2 020080d2 a80380d2 010000d4"  # x0=0 x1=0x540e x2=0 x8=29 svc
        "e00000b5"  # cbnz x0, report
        "690240f9 600640f9 61420091 220c098b"  # run: x9=argc x0=argv[0] x1=&argv[1] x2=envp
        "a81b80d2 010000d4"  # x8=221 svc
        "e00f1ff8 600080d2 e1030091 020180d2 080880d2 010000d4"  # report: [sp]=x0; x0=3 x1=sp x2=8 x8=64 svc
        "e00f80d2 c80b80d2 010000d4"  # exit: x0=127 x8=94 svc
    ),
}
_ORIGIN: Final = 0x400000
_HEADER, _SEGMENT = 64, 56


def elf(machine: str, orders: Orders) -> bytes:
    """The program as a static ELF file for x86_64 or aarch64. Raises KeyError."""
    code = _CODE[machine] + orders.packed()
    start = _HEADER + 2 * _SEGMENT
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, _MACHINES[machine], 1, _ORIGIN + start, _HEADER, 0, 0, _HEADER, _SEGMENT, 2, 64, 0, 0
    )
    size = start + len(code)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _ORIGIN, _ORIGIN, size, size, 0x10000)
    stack = struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


def stub(orders: Orders) -> int:
    """A descriptor of the program for this machine; the caller closes it. Raises Unsupported."""
    try:
        return sealed_program("scow-exec", elf(os.uname().machine, orders))
    except OSError as error:
        raise Unsupported(
            f"this machine refuses programs in memory: {error.strerror}",
            hint="set the sysctl vm.memfd_noexec to 0 or 1",
        ) from None
