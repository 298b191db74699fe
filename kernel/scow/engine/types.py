"""What the facade takes and gives, beside the model's own types. All times are seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scow.model.container import Container, Restart
from scow.model.digest import Digest
from scow.model.event import Event
from scow.model.image import ImageConfig, Manifest
from scow.model.network import PortMapping
from scow.model.platform import Platform
from scow.model.process import Mount, Resources
from scow.model.words import check_words

__all__ = [
    "Check",
    "Collection",
    "ContainerUsage",
    "CreateRequest",
    "Damage",
    "Decision",
    "DiskUsage",
    "EngineInfo",
    "Event",
    "HistoryLine",
    "ImageInfo",
    "ImageSummary",
    "ImageUsage",
    "Loaded",
    "LogRecord",
    "Output",
    "Phase",
    "PlatformEntry",
    "PluginInfo",
    "Progress",
    "PushResult",
    "Removal",
]


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """What `create` and `run` take: Docker's flags as data. None means: as the image says, or scow's default.

    `args` replaces the image's CMD; `entrypoint` replaces its ENTRYPOINT (an empty tuple removes it) and drops
    its CMD. `env` entries are `KEY=value`; an entry without `=` removes what the image set.
    """

    image: str
    args: tuple[str, ...] = ()
    name: str | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    workdir: str | None = None
    user: str | None = None
    groups: tuple[str, ...] = ()
    tty: bool = False
    stdin_open: bool = False
    stdin_once: bool = False
    hostname: str | None = None
    domainname: str = ""
    storage: str | None = None
    network: str | None = None
    runtime: str | None = None
    ports: tuple[PortMapping, ...] = ()
    publish_all: bool = False
    expose: tuple[str, ...] = ()
    mounts: tuple[Mount, ...] = ()
    resources: Resources = field(default_factory=Resources)
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only: bool = False
    seccomp: str = "default"
    no_new_privileges: bool = False
    unmasked: bool = False
    sysctls: tuple[tuple[str, str], ...] = ()
    init: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    auto_remove: bool = False
    detached: bool = False
    stop_signal: str | None = None
    stop_timeout: float | None = None
    restart: Restart = field(default_factory=Restart)
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    platform: Platform | None = None
    #: Docker's --pull: missing, always, never.
    pull: Literal["missing", "always", "never"] = "missing"
    #: Rows and columns of the terminal at the start, where known.
    rows: int = 0
    columns: int = 0

    def __post_init__(self) -> None:
        check_words("hostname", (self.hostname or "", self.domainname))
        check_words("nameserver", self.nameservers)
        check_words("search domain", self.search)
        check_words("option of the resolver", self.dns_options)
        check_words("host", (word for pair in self.extra_hosts for word in pair))


Phase = Literal[
    "resolving", "resolved", "waiting", "downloading", "downloaded", "unpacking", "complete", "exists",
    "preparing", "pushing", "pushed", "mounted", "present",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a pull or a push. `layer` is None for the image as a whole; `current` and `total` are bytes."""

    image: str
    layer: Digest | None
    phase: Phase
    current: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class PushResult:
    """What a push has made: where, the digest that the name points at there, and that document's size in bytes.

    `whole` is false when only this platform's image of an index went out, because the others aren't here; `converted`
    is true when Docker's documents became OCI's, which have another digest.
    """

    name: str
    digest: Digest
    size: int
    whole: bool
    converted: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image out of an archive, and the names that it has now because of that."""

    image: ImageInfo
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """A local image as lists show it: one manifest for one platform, with the names that point at it.

    `id` is the digest of its configuration, as Docker has it; `size` is what its layers take unpacked, in bytes;
    what it shares with other images is in it.
    """

    id: Digest
    manifest_digest: Digest
    names: tuple[str, ...]
    repo_digests: tuple[str, ...]
    created: float
    pulled: float
    size: int
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ImageInfo(ImageSummary):
    """The same with all that the image says about itself."""

    manifest: Manifest
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal of images took away: names in their short form, digests of images and layers, bytes on disk.

    `postponed`: another command was at work with the store, and frees the space when it ends.
    """

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    bytes: int = 0
    postponed: bool = False

    def __add__(self, other: Removal) -> Removal:
        return Removal(
            self.untagged + other.untagged,
            self.deleted + other.deleted,
            self.bytes + other.bytes,
            self.postponed or other.postponed,
        )


@dataclass(frozen=True, slots=True)
class BuildCacheEntry:
    """One thing of the build cache, as BuildKit shows them. Sizes in bytes, times in seconds since the epoch.

    kind: regular (a layer that a step has made) | exec.cachemount | source.local (digests of a context's files)
    """

    id: str
    kind: Literal["regular", "exec.cachemount", "source.local"]
    description: str
    created: float
    used: float
    #: How often; None where nobody counts.
    uses: int | None
    size: int
    #: Somebody builds with it.
    in_use: bool
    #: An image has the same layer: it takes no space of its own.
    shared: bool
    mutable: bool
    #: IDs of what it is built on.
    parents: tuple[str, ...] = ()
    #: Of `size`, what no earlier entry of a list has counted: for sums.
    own: int = 0


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """A cache mount. `id` is the user's word, `key` its directory's name; bytes, and seconds since the epoch.

    `number`: 0, or that of a copy which `sharing=private` has made. `origin`: what it began with (`from=`).
    """

    id: str
    key: str
    number: int
    origin: str
    size: int
    created: float
    used: float
    in_use: bool


@dataclass(frozen=True, slots=True)
class BuildCacheRemoval:
    """The IDs of what is gone, and bytes on disk. `postponed`: another command's end will free the rest."""

    ids: tuple[str, ...] = ()
    bytes: int = 0
    postponed: bool = False


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """What one image takes on disk, blobs and unpacked layers, in bytes: `shared` with other images or for itself."""

    id: Digest
    names: tuple[str, ...]
    repo_digests: tuple[str, ...]
    created: float
    size: int
    shared: int
    unique: int
    containers: int


@dataclass(frozen=True, slots=True)
class ContainerUsage:
    """What one container takes on disk beside its image, in bytes."""

    container: Container
    size: int


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What the store takes, in bytes; in the sums everything counts once. `leftovers` are pieces that nobody names."""

    images: tuple[ImageUsage, ...]
    containers: tuple[ContainerUsage, ...]
    images_bytes: int
    images_reclaimable: int
    leftover_bytes: int
    leftovers: int
    #: What is `shared` is among the images' bytes.
    build_cache: tuple[BuildCacheEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a collection does with one thing, and why.

    `bytes` are those that go when only this is removed in its turn, `shared` those that others keep there.
    """

    name: str
    action: Literal["keep", "remove"]
    reason: str
    bytes: int
    last_used: float = 0.0
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection did, or would do. `before` and `after` are the bytes of all blobs and layers."""

    decisions: tuple[Decision, ...]
    before: int
    after: int
    postponed: bool = False


@dataclass(frozen=True, slots=True)
class Damage:
    """A blob, or a layer as a driver has unpacked it, that isn't what its digest says; and the images that need it."""

    kind: Literal["blob", "layer"]
    digest: Digest
    problem: str
    images: tuple[str, ...]
    driver: str = ""
    repaired: bool = False
    #: Why it couldn't be repaired.
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """What fsck has looked at and found."""

    blobs: int
    layers: int
    damages: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class PlatformEntry:
    """One platform of an image that has several. `id` is set where that one is here."""

    platform: Platform | None
    manifest: Digest
    id: Digest | None


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One step of an image's making; `id` is None where the step is no image of its own. `size` in bytes, unpacked."""

    id: str | None
    created: float
    created_by: str
    comment: str
    size: int
    #: The image's tags, on its own line only.
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin as `scow plugins` lists it. `problem` is why it can't work here, None when it can."""

    name: str
    stages: tuple[str, ...]
    distribution: str
    version: str
    problem: str | None
    #: The stages for which it would be picked now.
    picked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `scow info` shows."""

    version: str
    root: str
    run: str
    containers: int
    running: int
    paused: int
    stopped: int
    images: int
    storage: str
    network: str
    runtime: str
    kernel: str
    architecture: str
    cgroup: str
    cpus: int
    memory: int
    #: What this machine lacks, in sentences.
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """A piece of a process's output. With a terminal everything is stdout."""

    stream: Literal["stdout", "stderr"]
    data: bytes


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of a container's log, with its line break where it had one."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    time: float
