"""What a stage does, as data: steps with everything replaced that could be replaced before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from scow.api import Platform
from scow_plugins.builder._instructions import Instruction


@dataclass(frozen=True, slots=True)
class Origin:
    """Where files come from: the context, a named one, a stage, an image, or the step itself."""

    kind: str
    name: str = ""
    stage: int = -1

    def __str__(self) -> str:
        return f"{self.kind} {self.stage if self.kind == 'stage' else self.name}".strip()


@dataclass(frozen=True, slots=True)
class File:
    """A file that the Dockerfile itself holds: a here-document."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class MountOp:
    """One `--mount`, expanded. What a kind doesn't know is empty."""

    kind: str
    target: str
    source: str = ""
    origin: Origin = Origin("context")
    read_only: bool = False
    id: str = ""
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int | None = None
    env: str = ""
    required: bool = False


@dataclass(frozen=True, slots=True)
class RunOp:
    """`env` is what the process gets; `proxies` comes on top and is nobody's business."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[MountOp, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    files: tuple[tuple[str, bytes], ...] = ()
    proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CopyOp:
    """COPY and ADD. `target` is absolute and keeps its last slash; `urls` are ADD's remote sources."""

    origin: Origin
    sources: tuple[str, ...]
    target: str
    add: bool = False
    files: tuple[File, ...] = ()
    urls: tuple[str, ...] = ()
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    unpack: bool | None = None
    #: ADD's git repositories, and whether git's own files come along.
    repositories: tuple[str, ...] = ()
    keep_git_dir: bool = False


@dataclass(frozen=True, slots=True)
class WorkdirOp:
    """A directory that must be there; made, it belongs to `owner` (`--chown`'s words; empty: root)."""

    path: str
    owner: str = ""


Op: TypeAlias = RunOp | CopyOp | WorkdirOp


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One instruction of a stage. `op` None: it changes the configuration only; `created_by` empty: and unseen."""

    said: Instruction
    title: str
    created_by: str
    #: A shell as the step would find things: `--break`, `--on-error`.
    shell: RunOp
    op: Op | None = None


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage to be solved. `base` is the stage below it, -1 for none; `needs` are all stages that it uses.

    `context`: a named context that it begins with the files of.
    """

    index: int
    name: str
    base: int
    image: str
    platform: Platform
    steps: tuple[PlannedStep, ...]
    needs: frozenset[int]
    config: dict[str, Any]
    context: str = ""
