"""Capabilities: names, Docker's default set, and what --cap-add and --cap-drop make of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from scow.api import Invalid

__all__ = ["DEFAULT", "NAMES", "capability_set", "mask_of", "numbers_of"]

# In the order of their numbers (capabilities(7), Linux 5.9).
_ALL: Final = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
    "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
NAMES: Final = tuple(f"CAP_{name}" for name in _ALL.split())
_NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}

_FOURTEEN: Final = (
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD "
    "AUDIT_WRITE SETFCAP"
)
#: Docker's.
DEFAULT: Final = frozenset(f"CAP_{name}" for name in _FOURTEEN.split())


def _normalise(names: Iterable[str], flag: str) -> tuple[bool, frozenset[str]]:
    """Is ALL among them, and the others as CAP_…; raises Invalid for a name that is none."""
    everything, found = False, set()
    for name in names:
        upper = name.strip().upper()
        if upper == "ALL":
            everything = True
            continue
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in _NUMBERS:
            raise Invalid(f"{flag}: there is no capability {name!r}", hint="capabilities(7) has the list")
        found.add(full)
    return everything, frozenset(found)


def capability_set(add: Iterable[str], drop: Iterable[str], *, privileged: bool = False) -> frozenset[str]:
    """What a container may have at most; as in Docker ALL in one list, exceptions in the other. Raises Invalid."""
    add_all, added = _normalise(add, "--cap-add")
    drop_all, dropped = _normalise(drop, "--cap-drop")
    if privileged:
        return frozenset(NAMES)
    if add_all:
        return frozenset(NAMES) - dropped
    if drop_all:
        return added
    return (DEFAULT - dropped) | added


def numbers_of(names: Iterable[str]) -> frozenset[int]:
    """Names (CAP_…) as the kernel's numbers."""
    return frozenset(_NUMBERS[name] for name in names)


def mask_of(names: Iterable[str]) -> int:
    """Names as a bit mask."""
    return sum(1 << number for number in numbers_of(names))
