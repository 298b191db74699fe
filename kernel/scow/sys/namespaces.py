"""Namespaces: unshare(2), setns(2), and a network namespace held by a descriptor.

Both system calls change the calling *thread*: use them in a process without other threads, and without an await
between entering and leaving.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntFlag

from scow.sys.libc import call

__all__ = ["Namespace", "inside_netns", "new_netns", "set_hostname", "setns", "unshare"]


class Namespace(IntFlag):
    """CLONE_NEW* flags."""

    MOUNT = 0x00020000
    CGROUP = 0x02000000
    UTS = 0x04000000
    IPC = 0x08000000
    USER = 0x10000000
    PID = 0x20000000
    NET = 0x40000000


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    call("unshare", flags)


def setns(fd: int, kind: int = 0) -> None:
    """setns(2) into a namespace descriptor, or into several of a pidfd's. Raises OSError."""
    call("setns", fd, kind)


def set_hostname(hostname: str, domainname: str) -> None:
    """sethostname(2) and setdomainname(2), in the caller's UTS namespace. Raises OSError."""
    for function, value in (("sethostname", hostname.encode()), ("setdomainname", domainname.encode())):
        call(function, value, len(value))


def new_netns() -> int:
    """A new network namespace, as a close-on-exec descriptor; it lives as long as the descriptor. Raises OSError."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(Namespace.NET)
        try:
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(home, Namespace.NET)
    finally:
        os.close(home)


@contextmanager
def inside_netns(fd: int) -> Iterator[None]:
    """Be in a network namespace for the body: sockets opened there stay there. The body must not await."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, Namespace.NET)
        try:
            yield
        finally:
            setns(home, Namespace.NET)
    finally:
        os.close(home)
