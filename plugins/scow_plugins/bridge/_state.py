"""What the bridge remembers, in one file changed only under a lock: the subnet, the leases, what was changed where.

Leases count for one boot: when the machine has started anew nobody has an address. The file is replaced by
rename and never synced, because what a crash of the machine may lose is what that crash has made void.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec

from scow.api import Exhausted


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive published ports: `count` of them from `host_port` on lead to those from `container_port` on."""

    protocol: str
    host_ip: str
    host_port: int
    container_port: int
    count: int


class Lease(msgspec.Struct, frozen=True):
    """An address that belongs to a container, and what else its endpoint has: the veth's name is the lease's key."""

    container: str
    address: str
    ports: list[Span] = []


class Obstacle(msgspec.Struct, frozen=True):
    """Somebody's rule that drops packets of containers, in a sentence; `published`: only those to published ports."""

    said: str
    published: bool


class State(msgspec.Struct):
    """The file's content."""

    boot: str = ""
    subnet: str = ""
    #: The address given out most recently.
    last: str = ""
    leases: dict[str, Lease] = {}
    #: Devices whose `forwarding` was 0 before the bridge needed it.
    opened: list[str] = []
    #: Others' firewalls have rules of ours; the devices that lead to the outside then. None: they have none.
    accepted: list[str] | None = None
    #: What nf_tables' generation was, and the setting, when others' firewalls were looked at last.
    checked: tuple[int, str] = (0, "")
    #: What was left in our way then.
    obstacles: list[Obstacle] = []
    #: When the last endpoint left, on the clock that runs since boot.
    idle_since: float = 0

    def network(self) -> IPv4Network:
        """The subnet, which has been chosen."""
        return IPv4Network(self.subnet)

    def leased(self) -> set[IPv4Address]:
        """The addresses that are in use."""
        return {IPv4Address(lease.address) for lease in self.leases.values()}


class Store:
    """The file and its lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "network.json"
        self._written = b""

    @contextmanager
    def locked(self) -> Iterator[State]:
        """The state, for nobody else meanwhile; `save` what was changed. Waits for the lock (a few ms at most)."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._load()
        finally:
            os.close(lock)

    def peek(self) -> State:
        """The state as it is now, to read only; nothing is made or waited for."""
        return self._load()

    def _load(self) -> State:
        boot = boot_id()
        try:
            state = msgspec.json.decode(self._file.read_bytes(), type=State)
        except (FileNotFoundError, msgspec.DecodeError):
            # Torn by a crash of the machine: then there is nothing to remember but the subnet's number.
            return State(boot=boot)
        if state.boot != boot:
            return State(boot=boot, subnet=state.subnet, last=state.last)
        return state

    def save(self, state: State) -> None:
        """Replace the file. Raises Exhausted, OSError."""
        data = msgspec.json.encode(state)
        temporary = self._file.with_suffix(".new")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            temporary.rename(self._file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._overwrite(data)

    def _overwrite(self, data: bytes) -> None:
        """On a full disk: write into the room that the file has, so that whoever filled it can still leave."""
        try:
            fd = os.open(self._file, os.O_WRONLY | os.O_CLOEXEC)
            try:
                # One write, padded: never half of the new text with half of the old one.
                os.pwrite(fd, data.ljust(os.fstat(fd).st_size), 0)
            finally:
                os.close(fd)
        except OSError as error:
            raise Exhausted(
                f"no room for the network's addresses: {(error.strerror or '').lower()}",
                hint=f"make room on the disk that holds {self._directory}",
            ) from None


def boot_id() -> str:
    """The kernel's name for the time since the machine started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
