"""A container as it is kept: what it was created with, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from scow.model.network import PortMapping
from scow.model.process import Isolation, ProcessSpec


class Status(Enum):
    """Docker's words for a container's state."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Restart:
    """Docker's --restart: no, on-failure[:n], always, unless-stopped."""

    policy: str = "no"
    maximum: int = 0


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that a container is created with, after the image's own wishes were merged in.

    `image` is the name that the user gave, `image_id` the digest of the image's configuration; `layers` are the
    chain IDs (as text), lowest first. Times are seconds since the epoch.
    """

    id: str
    name: str
    image: str
    image_id: str
    manifest: str
    layers: tuple[str, ...]
    storage: str
    network: str
    runtime: str
    process: ProcessSpec
    isolation: Isolation
    created: float
    ports: tuple[PortMapping, ...] = ()
    exposed: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    #: Standard input stays open (-i); without it the process reads /dev/null.
    stdin_open: bool = False
    #: It ends when the first client that feeds it leaves (Docker's StdinOnce); never that of a terminal.
    stdin_once: bool = False
    auto_remove: bool = False
    detached: bool = False
    stop_signal: str = "SIGTERM"
    #: Seconds that `stop` waits before it kills.
    stop_timeout: float = 10
    restart: Restart = field(default_factory=Restart)
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    #: The size and number of log files (Docker's json-file: max-size, max-file); 0: unlimited.
    log_max_size: int = 0
    log_max_file: int = 1
    #: Which snapshots the layers are, where the driver is not `storage` (a `host:` image's root).
    layer_drivers: tuple[str, ...] = ()
    #: How many of the process's words are the ENTRYPOINT; the others are CMD. None: written before this was kept.
    entry_words: int | None = None

    @property
    def entrypoint(self) -> tuple[str, ...]:
        """Docker's Config.Entrypoint; empty where it isn't known."""
        return self.process.args[: self.entry_words or 0]

    @property
    def cmd(self) -> tuple[str, ...]:
        """Docker's Config.Cmd."""
        return self.process.args[self.entry_words or 0 :]

    @property
    def env(self) -> tuple[str, ...]:
        """Docker's Config.Env: what the image and the user said, without the name that each container is given."""
        given = f"HOSTNAME={self.isolation.hostname}"
        return tuple(entry for entry in self.process.env if entry != given)

    @property
    def exposed_ports(self) -> tuple[str, ...]:
        """Docker's Config.ExposedPorts: a published port is exposed, too."""
        published = (f"{port.container_port}/{port.protocol}" for port in self.ports)
        return tuple(dict.fromkeys((*self.exposed, *published)))


@dataclass(frozen=True, slots=True)
class ContainerState:
    """What became of a container. Times are seconds since the epoch, 0 for never."""

    status: Status = Status.CREATED
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started: float = 0
    finished: float = 0
    restarts: int = 0
    #: A user stopped it, so that `unless-stopped` leaves it so.
    stopped_by_user: bool = False
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    mac: str = ""
    ports: tuple[PortMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """A container's specification and state, read at one moment."""

    spec: ContainerSpec
    state: ContainerState
