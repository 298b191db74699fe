"""What must stay: what images, containers and the build cache name. Everything else is garbage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, cast

import msgspec

from scow.engine.core import Core
from scow.errors import ScowError
from scow.model.descriptor import INDEXES
from scow.model.digest import Digest, chain_ids
from scow.model.storage import SnapshotStore
from scow.state import containers
from scow.state import images as rows
from scow.state.buildcache import kept

#: Indexes within indexes that are looked into.
_DEPTH: Final = 4


class _Descriptor(msgspec.Struct, rename="camel"):
    digest: str
    media_type: str = ""


class _Manifest(msgspec.Struct):
    config: _Descriptor
    layers: list[_Descriptor]


class _Index(msgspec.Struct):
    manifests: list[_Descriptor]


class _Rootfs(msgspec.Struct):
    diff_ids: list[str] = []


class _Config(msgspec.Struct):
    rootfs: _Rootfs = msgspec.field(default_factory=_Rootfs)


_manifests: Final = msgspec.json.Decoder(_Manifest)
_indexes: Final = msgspec.json.Decoder(_Index)
_configs: Final = msgspec.json.Decoder(_Config)
_PROBLEMS: Final = (OSError, msgspec.MsgspecError, UnicodeDecodeError, ScowError)


@dataclass(slots=True)
class Parts:
    """What an image consists of. `problem` says why not all of it is known: the store is damaged."""

    blobs: set[Digest] = field(default_factory=set)
    #: Chain IDs, lowest first.
    layers: tuple[Digest, ...] = ()
    problem: str | None = None


@dataclass(slots=True)
class Needed:
    """All that images and containers name, and the images (manifest digests) of which not everything is known."""

    blobs: set[Digest] = field(default_factory=set)
    layers: set[Digest] = field(default_factory=set)
    damaged: dict[Digest, str] = field(default_factory=dict)

    def add(self, manifest: Digest, parts: Parts) -> None:
        self.blobs |= parts.blobs
        self.layers |= set(parts.layers)
        if parts.problem is not None:
            self.damaged[manifest] = parts.problem


def needed(core: Core, *, caches: bool = True) -> Needed:
    """Look at every image and every container, and (with `caches`) the build cache. Never raises for a damaged one."""
    found = Needed()
    images = rows.all_images(core.database)
    for image in images:
        found.add(image.manifest, parts_of(core, image.manifest, image.root))
    known = {image.manifest for image in images}
    for container in containers.listing(core.database):
        found.layers |= {Digest.parse(layer) for layer in container.spec.layers}
        manifest = Digest.parse(container.spec.manifest)
        if manifest not in known:
            # The image was removed by force; `commit` still needs what it was made of, if that is whole.
            parts = parts_of(core, manifest, manifest)
            found.blobs |= parts.blobs
    for digest, chain in kept(core.paths.build_cache) if caches else ():
        found.blobs.add(Digest.parse(digest))
        found.layers.add(Digest.parse(chain))
    return found


def parts_of(core: Core, manifest: Digest, root: Digest) -> Parts:
    """What one image consists of. Cheap: digests aren't checked. Never raises."""
    parts = Parts({manifest, root})
    try:
        if root != manifest:
            parts.blobs |= _below_index(core, root, _DEPTH)
        read = _manifests.decode(core.content.blob(manifest).read_bytes())
        config = Digest.parse(read.config.digest)
        parts.blobs |= {config, *(Digest.parse(layer.digest) for layer in read.layers)}
        diff_ids = _configs.decode(core.content.blob(config).read_bytes()).rootfs.diff_ids
        parts.layers = chain_ids(tuple(Digest.parse(text) for text in diff_ids))
    except _PROBLEMS as error:
        parts.problem = str(error)
    return parts


def _below_index(core: Core, index: Digest, depth: int) -> set[Digest]:
    """The manifests that an index names; most of them aren't here, which makes no difference."""
    try:
        entries = _indexes.decode(core.content.blob(index).read_bytes()).manifests
    except FileNotFoundError:
        return set()
    found = {Digest.parse(entry.digest) for entry in entries}
    if depth:
        for entry in entries:
            if entry.media_type in INDEXES:
                found |= _below_index(core, Digest.parse(entry.digest), depth - 1)
    return found


def snapshot_stores(core: Core) -> Iterator[tuple[str, SnapshotStore]]:
    """Every plugin that keeps layers, by name. Those that can't be loaded are left out: so are their layers."""
    for name in core.registry.names("unpack"):
        instance = core.registry.get("unpack", name).instance
        if instance is not None and hasattr(instance, "snapshots"):
            yield name, cast(SnapshotStore, instance)
