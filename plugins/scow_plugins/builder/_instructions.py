"""The instructions of a Dockerfile as data: what is written, before variables are replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from scow_plugins.builder._source import Heredoc, Statement

Pairs: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What RUN, CMD, ENTRYPOINT and a health check hold: words of an exec form, or one line for the shell."""

    words: tuple[str, ...]
    shell: bool


@dataclass(frozen=True, slots=True)
class RunMount:
    """One `--mount` of RUN, its values still unexpanded: (key, value) as written, and its type."""

    kind: str
    values: Pairs

    def get(self, *names: str) -> str | None:
        """The value of a key under any of its names; the last one written counts."""
        return next((value for key, value in reversed(self.values) if key in names), None)


@dataclass(frozen=True, slots=True)
class From:
    at: Statement
    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Arg:
    """Names with their defaults; None where there is none."""

    at: Statement
    values: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class Env:
    at: Statement
    values: Pairs
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    at: Statement
    values: Pairs
    legacy: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    at: Statement
    command: CommandLine
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY, or ADD where `add` is true. Sources that name a here-document are in `heredocs` instead."""

    at: Statement
    sources: tuple[str, ...]
    target: str
    add: bool = False
    stage: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    #: ADD --unpack: None leaves it to what the source is.
    unpack: bool | None = None
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Workdir:
    at: Statement
    path: str


@dataclass(frozen=True, slots=True)
class User:
    at: Statement
    user: str


@dataclass(frozen=True, slots=True)
class Volume:
    at: Statement
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expose:
    at: Statement
    ports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cmd:
    at: Statement
    command: CommandLine


@dataclass(frozen=True, slots=True)
class Entrypoint:
    at: Statement
    command: CommandLine


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """`command` None means NONE. Durations in nanoseconds, None where not written."""

    at: Statement
    command: CommandLine | None
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class StopSignal:
    at: Statement
    signal: str


@dataclass(frozen=True, slots=True)
class Shell:
    at: Statement
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OnBuild:
    """`text` is what the image keeps; `trigger` is the same, understood."""

    at: Statement
    text: str
    trigger: Instruction


@dataclass(frozen=True, slots=True)
class Maintainer:
    at: Statement
    name: str


Instruction: TypeAlias = (
    From | Arg | Env | Label | Run | Copy | Workdir | User | Volume | Expose | Cmd | Entrypoint | Healthcheck
    | StopSignal | Shell | OnBuild | Maintainer
)  # fmt: skip
