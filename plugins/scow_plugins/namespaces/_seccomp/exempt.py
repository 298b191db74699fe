"""What the program in _stub.py asks of the kernel although the container's filter may forbid it.

A process that joins a container must have its filter before those inside can see it, so that the filter is there
already when the program calls clone(2), setsid(2) and the like, which a profile may forbid. These calls, with these
arguments, are allowed to whoever has a number of 64 bits in the sixth argument, which none of them uses. The number
is new for each process. Who traces the process might learn it, and could then do what is listed here and no more,
beneath this filter.
"""

from __future__ import annotations

from typing import Final

from scow_plugins.namespaces._seccomp.compiler import precede
from scow_plugins.namespaces._seccomp.rules import ALLOW, Condition, Rule
from scow_plugins.namespaces._stub import CLONE_FLAGS, REPORT_FD

__all__ = ["MOST", "exempt"]

#: More instructions than `exempt` adds.
MOST: Final = 96
_TOKEN: Final = 5
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _TIOCSCTTY, _CLOSE_RANGE_CLOEXEC = 1, 4, 0x540E, 4
#: The call, which of its arguments must be what.
_CALLS: Final = (
    ("clone", 0, CLONE_FLAGS),
    ("prctl", 0, _PR_SET_PDEATHSIG),
    ("prctl", 0, _PR_SET_DUMPABLE),
    ("ioctl", 1, _TIOCSCTTY),
    ("close_range", 2, _CLOSE_RANGE_CLOEXEC),
    ("recvmmsg", 0, REPORT_FD),
)


def exempt(program: bytes, token: int, machine: str) -> bytes:
    """A filter program with the exemption before it. Raises KeyError for a machine without a table."""
    known = Condition(_TOKEN, "==", token)
    rules = [Rule((name,), ALLOW, (known, Condition(index, "==", value))) for name, index, value in _CALLS]
    return precede((*rules, Rule(("setsid",), ALLOW, (known,))), program, machine)
