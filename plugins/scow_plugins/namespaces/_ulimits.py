"""Limits of single processes (`--ulimit`): setrlimit(2) between clone3(2) and execve(2)."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from typing import Final

from scow.api import Denied, Invalid, Ulimit

__all__ = ["check_ulimits", "set_ulimits"]

#: Docker's names; numbers of the kernel's asm-generic/resource.h, which x86-64 and arm64 use.
_NUMBERS: Final = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}


def check_ulimits(limits: Iterable[Ulimit]) -> None:
    """Refuse what can't be meant. Raises Invalid."""
    for limit in limits:
        if limit.name not in _NUMBERS:
            raise Invalid(f"invalid ulimit type: {limit.name}", hint=f"there are {', '.join(sorted(_NUMBERS))}")
        if min(limit.soft, limit.hard) < -1 or (limit.hard != -1 and not -1 < limit.soft <= limit.hard):
            raise Invalid(f"ulimit {limit}: the soft limit must not be above the hard one")


def set_ulimits(limits: Iterable[Ulimit]) -> None:
    """Set the calling process's limits, which its children inherit. Raises Denied, Invalid."""
    for limit in limits:
        number = _NUMBERS[limit.name]
        try:
            resource.setrlimit(number, (limit.soft, limit.hard))
        except (PermissionError, ValueError):
            # Python says ValueError for EPERM where a hard limit would be raised.
            hard = resource.getrlimit(number)[1]
            raise Denied(
                f"can't set ulimit {limit}: operation not permitted",
                hint=f"the hard limit here is {'unlimited' if hard == -1 else hard}; to raise it, scow needs "
                "CAP_SYS_RESOURCE" + (" (the most is /proc/sys/fs/nr_open)" if limit.name == "nofile" else ""),
            ) from None
        except OSError as error:
            raise Invalid(f"can't set ulimit {limit}: {os.strerror(error.errno or 0).lower()}") from None
