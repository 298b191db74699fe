"""What front-ends and builders say to each other. A builder is a plugin of the group `scow.build`.

Its entry point names a callable without arguments that gives a `Builder`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from scow.engine.building import Workbench
from scow.engine.session import Conversation
from scow.engine.types import ImageInfo
from scow.entrypoints import scan
from scow.errors import NotFound
from scow.model.descriptor import Descriptor
from scow.model.digest import Digest
from scow.model.platform import Platform
from scow.model.process import Ulimit
from scow.model.words import check_words

__all__ = [
    "BuildEvent",
    "BuildOutput",
    "BuildRequest",
    "BuildResult",
    "Builder",
    "CacheTarget",
    "Finding",
    "Shells",
    "find_builder",
]


@dataclass(frozen=True, slots=True)
class BuildOutput:
    """Where a result goes. `dest` is a path; empty: nowhere but the image store (`image`, `docker`).

    kind: image (kept here under its names) | docker, oci (an archive; with `directory` a layout) | tar, local (files)
    | none
    """

    kind: Literal["image", "docker", "oci", "tar", "local", "none"]
    dest: str = ""
    #: Beside the request's.
    names: tuple[str, ...] = ()
    push: bool = False
    directory: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps(self) -> bool:
        """Whether the image stays here."""
        return self.kind == "image" or (self.kind == "docker" and not self.dest)


@dataclass(frozen=True, slots=True)
class CacheTarget:
    """Where what a build has met is written for others. `inline`: into the image; else `place` is a reference.

    `everything`: all stages, not only what the result is made of.
    """

    kind: Literal["inline", "image"]
    place: str = ""
    everything: bool = False
    ignore_error: bool = False


@dataclass(frozen=True, slots=True)
class Shells:
    """Shells in a build's files, for its user to look around.

    `converse` connects the user with a shell that runs, until it ends, and gives its exit code; the text says what it
    is about. `tty`: the user has a terminal.
    """

    converse: Callable[[Conversation, str], Awaitable[int]]
    tty: bool
    #: In the files of a step that failed.
    on_error: bool = False
    #: Before the steps that these lines of the file belong to.
    breaks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """A build as the command line says it.

    The context is a directory (`context`), or what a descriptor gives (`stream`), or what a URL leads to (`remote`);
    `Builder.prepared` makes the first of the others. None of them: there is no context.
    """

    #: The file's bytes; None: it is in the context, under `file_name` (empty: the usual name).
    file: bytes | None = None
    #: What the user calls the file, for messages.
    file_name: str = ""
    #: The file is the user's own, not one that came with a context from elsewhere; `Builder.prepared` finds that out.
    own_file: bool = False
    context: Path | None = None
    stream: int | None = None
    remote: str = ""
    #: What the user calls the context: the same for the next build.
    context_name: str = ""
    #: What the context leaves out: an ignore file's content; None: what the context's own says.
    ignore: bytes | None = None
    names: tuple[str, ...] = ()
    target: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    platform: Platform = field(default_factory=Platform.host)
    no_cache: bool = False
    #: Stages that don't use the cache.
    no_cache_filter: tuple[str, ...] = ()
    #: True: base images are fetched anew; False: of those that are here nothing is asked; None: newer ones are taken.
    pull: bool | None = None
    network: str = "default"
    #: INCLUDE is an instruction, also where the file doesn't say so.
    include: bool = False
    #: By id; read when a step wants them, never kept.
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int | None = None
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""
    #: None: the image is kept here.
    outputs: tuple[BuildOutput, ...] = ()
    #: References of caches that may be used, and where to write some.
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[CacheTarget, ...] = ()
    #: Of the image's manifest.
    annotations: Mapping[str, str] = field(default_factory=dict)
    #: What steps may have beyond what containers have: `security.insecure`.
    entitlements: frozenset[str] = frozenset()
    #: Sockets of SSH agents, by id.
    agents: Mapping[str, str] = field(default_factory=dict)
    shells: Shells | None = None

    def __post_init__(self) -> None:
        check_words("host", (word for pair in self.extra_hosts for word in pair))


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a check complains about: its rule, what is wrong, and the place with the line shown."""

    rule: str
    message: str
    line: int
    shown: str = ""
    url: str = ""
    #: The file, when it isn't the request's own.
    file: str = ""


@dataclass(frozen=True, slots=True)
class BuildEvent:
    """Something that happened. `step` is a number that stays the same for one step; `seconds` since it began.

    kind: plan (`total` steps are to come) | start (on top of the steps `inputs`) | output (`data`, as it was written)
    | status (of a layer that is fetched, `title`: `why` is its phase; `current` of `total` bytes) | cached | done
    | failed | note | warned (`findings`, before anything runs). What belongs to no stage is no step of the plan.
    """

    kind: Literal["plan", "start", "output", "status", "cached", "done", "failed", "note", "warned"]
    step: int
    title: str = ""
    stage: str = ""
    data: bytes = b""
    stream: Literal["stdout", "stderr"] = "stdout"
    seconds: float = 0.0
    #: What has changed since it was last built; why it failed.
    why: str = ""
    inputs: tuple[int, ...] = ()
    current: int = 0
    total: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What came out. `image` None: it wasn't kept here; `id` and `digest` (of its manifest) say what it is."""

    image: ImageInfo | None
    id: Digest
    digest: Digest
    #: Steps that were taken from the cache, and all that there were.
    cached: int
    steps: int
    warnings: tuple[Finding, ...] = ()
    #: Names that were pushed, with their digests.
    pushed: tuple[tuple[str, Digest], ...] = ()
    #: Of its manifest, whose digest is `digest`.
    descriptor: Descriptor | None = None


class Builder(Protocol):
    """What a builder plugin does. All but `prepared` take the request that it gives."""

    def prepared(self, bench: Workbench, request: BuildRequest) -> AbstractAsyncContextManager[BuildRequest]:
        """The request with its contexts fetched and unpacked, and its file read, for the block's time.

        Raises NotFound, Invalid, Corrupt, Denied, Unavailable, Exhausted, Unsupported.
        """
        ...

    def check(self, bench: Workbench, request: BuildRequest) -> tuple[Finding, ...]:
        """Complaints about the file; nothing is built. Raises Invalid for what can't be read at all."""
        ...

    async def plan(self, bench: Workbench, request: BuildRequest) -> dict[str, Any]:
        """What would be done, as data."""
        ...

    async def build(
        self, bench: Workbench, request: BuildRequest, listener: Callable[[BuildEvent], None]
    ) -> BuildResult:
        """Build. Raises Invalid, NotFound, Conflict (a command failed), and what the engine raises."""
        ...


def find_builder(name: str = "") -> Builder:
    """The builder of a name, else the first one. Raises NotFound."""
    points = [point for point in scan() if point.group == "scow.build"]
    for point in points:
        if not name or point.name == name:
            return cast(Callable[[], Builder], point.load())()
    there = ", ".join(point.name for point in points) or "none"
    raise NotFound(f"there is no builder {name!r}".replace(" ''", ""), hint=f"plugins of the group scow.build: {there}")
