"""Becoming the user a process runs as: identity from the image's files, limits on capabilities, system calls."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from scow.api import Internal, Ulimit
from scow.api.linux import (
    Prctl,
    drop_bounding,
    install_filter,
    prctl,
    read_beneath,
    set_capabilities,
)
from scow_plugins.namespaces._caps import mask_of, numbers_of
from scow_plugins.namespaces._errors import explain
from scow_plugins.namespaces._users import Identity, look_up

__all__ = ["Privileges", "become", "identify", "own_pipes"]

_SIGKILL = 9


@dataclass(frozen=True, slots=True)
class Privileges:
    """What a process may do at most: capabilities (CAP_… names), its seccomp program, if any, and its limits."""

    capabilities: frozenset[str]
    seccomp: bytes | None
    no_new_privileges: bool
    ulimits: tuple[Ulimit, ...] = ()


def identify(root: int, user: str, groups: tuple[str, ...]) -> Identity:
    """Look a user up in the image's own /etc/passwd and /etc/group. Raises NotFound, Invalid."""
    return look_up(user, groups, _content(root, "/etc/passwd"), _content(root, "/etc/group"))


def _content(root: int, path: str) -> bytes:
    try:
        return read_beneath(root, path)
    except OSError:  # not there, a FIFO, a loop: as if it were empty
        return b""


def own_pipes(uid: int) -> None:
    """Give the pipes behind 0, 1 and 2 to the user, so that /dev/stdout can be opened again."""
    for fd in range(3):
        found = os.fstat(fd)
        if stat.S_ISFIFO(found.st_mode) and found.st_uid != uid:
            try:
                os.fchown(fd, uid, -1)
            except OSError:
                pass  # a pipe of somebody else's: it stays as it is


def become(identity: Identity, privileges: Privileges) -> None:
    """The last steps before execve(2), which itself cuts the permitted capabilities down to the bounding set (root) or
    to none (everybody else). CAP_SYS_ADMIN stays in effect until then because seccomp(2) asks for it.

    Raises ScowError.
    """
    try:
        drop_bounding(numbers_of(privileges.capabilities))
        os.setgroups(identity.groups)
        prctl(Prctl.SET_KEEPCAPS, 1)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
        # A change of user forgets it.
        prctl(Prctl.SET_PDEATHSIG, _SIGKILL)
        if privileges.no_new_privileges:
            prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise explain(error, f"can't become user {identity.uid}") from None
    if os.getresuid() != (identity.uid,) * 3 or os.getresgid() != (identity.gid,) * 3:
        raise Internal(f"the kernel didn't change to user {identity.uid}")


def restrict(identity: Identity, privileges: Privileges) -> None:
    """Capabilities in effect until execve(2), then the seccomp filter; nothing but execve(2) may follow."""
    try:
        needed = (
            mask_of(privileges.capabilities | {"CAP_SYS_ADMIN"}) if identity.uid == 0 else mask_of({"CAP_SYS_ADMIN"})
        )
        set_capabilities(effective=needed)
        if privileges.seccomp is not None:
            install_filter(privileges.seccomp)
    except OSError as error:
        raise explain(error, "can't install the seccomp filter") from None
