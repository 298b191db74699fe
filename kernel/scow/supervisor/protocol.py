"""What a client and a supervisor say to each other, as types; `frames` carries it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from scow.config import Config
from scow.model.container import ContainerSpec
from scow.model.process import ProcessSpec


@dataclass(frozen=True, slots=True)
class LayerView:
    """A directory or file of another stack of layers that a build step sees at `target`; what it writes is lost."""

    layers: tuple[str, ...]
    source: str
    target: str
    read_only: bool = True


@dataclass(frozen=True, slots=True)
class StepFile:
    """A small file that a build step sees and that is never on a disk: a secret, a script."""

    target: str
    content: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class StepFolder:
    """A directory of the engine's own that build steps write to; `source` is a path in it, whose links end in it."""

    path: str
    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class StepRequest:
    """A build step: a container without a record, which leaves what it wrote in `scratch`."""

    spec: ContainerSpec
    scratch: str
    views: tuple[LayerView, ...] = ()
    files: tuple[StepFile, ...] = ()
    folders: tuple[StepFolder, ...] = ()
    #: Whoever holds the channel gives the input; without it the program reads nothing.
    stdin: bool = False


@dataclass(frozen=True, slots=True)
class SuperviseRequest:
    """What a new supervisor is told. `attach`: whoever holds the channel wants the output and gives the input."""

    root: str
    run: str
    config: str | None
    #: The configuration as it was read: a supervisor reads no files anew.
    settings: Config
    container: str
    command: str
    attach: bool = False
    stdin: bool = False
    rows: int = 0
    columns: int = 0
    #: Not a container that has a record, but a step of a build.
    step: StepRequest | None = None
    #: The container runs; the channel leads to its keeper (scow.keeper).
    resume: bool = False

    def resumed(self) -> SuperviseRequest:
        """What the next supervisor of the same container is told."""
        return replace(self, attach=False, stdin=False, resume=True)

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> SuperviseRequest:
        return msgspec.json.decode(data, type=cls)


@dataclass(frozen=True, slots=True)
class Order:
    """The first control message on a control socket: what the client wants.

    do: attach | exec | signal | stop | pause | resume | wait | stats
    """

    do: str
    stdin: bool = False
    process: ProcessSpec | None = None
    number: int = 0
    everyone: bool = False
    timeout: float | None = None
    detach: bool = False
    command: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def order_of(message: bytes) -> Order:
    """Read an order. Raises msgspec.ValidationError."""
    return msgspec.json.decode(message, type=Order)


def socket_address(directory_fd: int) -> str:
    """A control socket's address, short whatever the directory's name is (sun_path holds 108 bytes, unix(7))."""
    return f"/proc/self/fd/{directory_fd}/control.sock"


def log_path(container_dir: Path, container_id: str) -> Path:
    """Where a container's log lies: Docker's json-file format under Docker's name."""
    return container_dir / f"{container_id}-json.log"
