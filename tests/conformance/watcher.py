"""Runs inside of a container: meets every process that comes into its PID namespace, as early as it can.

    watcher.py look|trace|forge OUTPUT

`look` reads what /proc says about it, `trace` stops it with ptrace(2) and reads what it is then, `forge` takes its
descriptors and speaks on its sockets. Writes one JSON object a line to OUTPUT, the first when it is ready, memory to
OUTPUT.memory. Imports nothing of scow's.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys
from collections.abc import Callable

_LIBC = ctypes.CDLL(None, use_errno=True)
_SEIZE, _INTERRUPT, _DETACH = 0x4206, 0x4207, 17
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438
_PROCESS_VM_READV = {"x86_64": 310}.get(os.uname().machine, 270)
#: What a child of scow's would say (see _protocol.py, also in the form before this test), and what nobody says.
_FORGED = (
    b"ERROR\0\0\0\0internal\0FORGED \x1b[31m\0FORGED",
    b"Einternal\0FORGED \x1b[31m\0FORGED",
    struct.pack("<q", 1),
    b"T",
    b"",
    b"FORGED" * 1000,
)


def link(pid: int, name: str) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/{name}")
    except OSError:
        return None


def content(pid: int, name: str) -> str | None:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read().decode(errors="backslashreplace")
    except OSError:
        return None


def place(path: str) -> list[int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return [info.st_dev, info.st_ino]


def memory(pid: int, maps: str, file: int) -> None:
    """All that can be read and written, as far as it is still there."""
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    except OSError:
        return
    for line in maps.splitlines():
        begin, _, end = line.split()[0].partition("-")
        if line.split()[1].startswith("rw"):
            try:
                os.write(file, os.pread(fd, min(int(end, 16) - int(begin, 16), 1 << 22), int(begin, 16)))
            except OSError:
                continue
    os.close(fd)


def look(pid: int, out: int) -> dict[str, object]:
    exe = link(pid, "exe")
    descriptors = {}
    try:
        for name in os.listdir(f"/proc/{pid}/fd"):
            descriptors[name] = link(pid, f"fd/{name}")
    except OSError:
        pass
    seen = {
        "exe": exe,
        "fd": descriptors,
        "root": place(f"/proc/{pid}/root"),
        "cwd": place(f"/proc/{pid}/cwd"),
        "environ": content(pid, "environ"),
        "maps": content(pid, "maps"),
        "status": content(pid, "status"),
    }
    if seen["maps"]:
        memory(pid, str(seen["maps"]), out)
    return {**seen, "exe_after": link(pid, "exe")}


def trace(pid: int, out: int) -> dict[str, object]:
    """While it is stopped it doesn't become anything else."""
    buffer = ctypes.create_string_buffer(64)
    vector = struct.pack("PN", ctypes.addressof(buffer), 64)
    remote = struct.pack("PN", 0x400000, 64)
    read = _LIBC.syscall(_PROCESS_VM_READV, pid, vector, 1, remote, 1, 0)
    program = buffer.raw.hex() if read > 0 else None
    # Not PTRACE_ATTACH, which may leave a SIGSTOP behind.
    if _LIBC.ptrace(_SEIZE, pid, None, None) != 0 or _LIBC.ptrace(_INTERRUPT, pid, None, None) != 0:
        return {"attached": False, "read": read, "program": program}
    if not os.WIFSTOPPED(os.waitpid(pid, 0x40000000)[1]):  # __WALL
        return {"attached": False, "read": read, "program": program}
    seen = {"attached": True, "read": read, "program": program, **look(pid, out)}
    _LIBC.ptrace(_DETACH, pid, None, None)
    return seen


def forge(pid: int, out: int) -> dict[str, object]:
    """Its descriptors, kept for good: whoever waits for their end waits for long."""
    handle = _LIBC.syscall(_PIDFD_OPEN, pid, 0)
    taken = []
    for number in range(3, 12):
        fd = _LIBC.syscall(_PIDFD_GETFD, handle, number, 0)
        if fd < 0:
            continue
        where = os.readlink(f"/proc/self/fd/{fd}")
        taken.append(where.partition(":")[0])
        if not where.startswith("socket:"):
            os.close(fd)
            continue
        line = socket.socket(fileno=os.dup(fd))
        for record in _FORGED:
            try:
                socket.send_fds(line, [record], [0, 1], socket.MSG_DONTWAIT)
            except OSError:
                continue
        line.detach()
    if handle >= 0:
        os.close(handle)
    return {"taken": taken}


def main() -> None:
    mode, path = sys.argv[1:]
    act: Callable[[int, int], dict[str, object]] = {"look": look, "trace": trace, "forge": forge}[mode]
    out = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    memory_out = os.open(f"{path}.memory", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    own = {"root": place("/"), "status": content(os.getpid(), "status"), "ready": True}
    os.write(out, json.dumps(own).encode() + b"\n")
    # Nobody else makes processes in here, so that the next one's number is the next. Those that were gone before they
    # were met are left out.
    following = os.getpid() + 1
    while True:
        for _ in range(100):
            try:
                os.stat(f"/proc/{following}")
            except OSError:
                continue
            os.write(out, json.dumps({"pid": following, **act(following, memory_out)}).encode() + b"\n")
            following += 1
        with open("/proc/sys/kernel/ns_last_pid", "rb") as file:
            following = max(following, int(file.read()))


if __name__ == "__main__":
    main()
