"""What takes how much space. A blob or layer that several images share counts once in every sum."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from scow.engine import images
from scow.engine.core import Core
from scow.engine.garbage import disk_bytes, unneeded
from scow.engine.marking import needed, parts_of, snapshot_stores
from scow.engine.types import ContainerUsage, DiskUsage, ImageUsage
from scow.errors import NotFound, ScowError
from scow.model.container import Container, Status
from scow.model.digest import Digest
from scow.state import containers
from scow.state import images as rows

#: A blob or a layer on disk.
Piece: TypeAlias = tuple[rows.Kind, Digest]


@dataclass(slots=True)
class Pieces:
    """Sizes of blobs and layers, each looked up once; 0 for what isn't here."""

    core: Core
    _sizes: dict[Piece, int] = field(default_factory=dict)

    def size(self, piece: Piece) -> int:
        if piece not in self._sizes:
            self._sizes[piece] = self._look(*piece)
        return self._sizes[piece]

    def sum(self, pieces: Iterable[Piece]) -> int:
        return sum(self.size(piece) for piece in pieces)

    def _look(self, kind: str, digest: Digest) -> int:
        if kind == "blob":
            with suppress(OSError):
                return disk_bytes(self.core.content.blob(digest))
            return 0
        total = 0
        for _, store in snapshot_stores(self.core):
            with suppress(NotFound):
                total += store.usage(digest)
        return total


def pieces_of(core: Core, row: rows.ImageRow) -> set[Piece]:
    """What an image consists of."""
    parts = parts_of(core, row.manifest, row.root)
    return {("blob", blob) for blob in parts.blobs} | {("layer", layer) for layer in parts.layers}


def disk_usage(core: Core) -> DiskUsage:
    """Images, containers, and what nobody names. Blocks."""
    sizes = Pieces(core)
    everything = rows.all_images(core.database)
    pieces = {row.manifest: pieces_of(core, row) for row in everything}
    shares = Counter(piece for each in pieces.values() for piece in each)
    made = containers.listing(core.database)
    uses = Counter(container.spec.manifest for container in made)
    active = {piece for manifest, each in pieces.items() if uses[str(manifest)] for piece in each}
    whole = sizes.sum(shares)
    blobs, layers = unneeded(core, needed(core))
    left = sizes.sum([*(("blob", blob) for blob in blobs), *(("layer", layer) for layer in layers)])
    # It stands on this module.
    from scow.engine import buildgarbage

    return DiskUsage(
        images=tuple(_image(core, row, pieces[row.manifest], shares, sizes, uses) for row in everything),
        containers=tuple(ContainerUsage(each, scratch_bytes(core, each)) for each in made),
        images_bytes=whole,
        images_reclaimable=whole - sizes.sum(active),
        leftover_bytes=left + partial_bytes(core),
        leftovers=len(blobs) + len(layers) + len(core.content.partial()),
        build_cache=buildgarbage.entries(core, sizes),
    )


def _image(
    core: Core,
    row: rows.ImageRow,
    pieces: set[Piece],
    shares: Counter[Piece],
    sizes: Pieces,
    uses: Counter[str],
) -> ImageUsage:
    shared = sizes.sum(piece for piece in pieces if shares[piece] > 1)
    size = sizes.sum(pieces)
    names = rows.names_of(core.database).get(str(row.manifest), ([], []))
    created = row.pulled
    with suppress(ScowError):
        created = images.seconds(images.config_of(core, row).created)
    return ImageUsage(
        id=row.config,
        names=tuple(images.familiar(core, name) for name in names[0]),
        repo_digests=tuple(names[1]),
        created=created,
        size=size,
        shared=shared,
        unique=size - shared,
        containers=uses[str(row.manifest)],
    )


def scratch_bytes(core: Core, container: Container) -> int:
    """What a container's own files take: its writable layer, its logs, its generated files."""
    return tree_bytes(core.paths.container(container.spec.id))


def tree_bytes(path: Path) -> int:
    """Bytes on disk beneath a directory; files with several names count once, other file systems not at all."""
    total = 0
    seen: set[int] = set()
    with suppress(FileNotFoundError):
        device = os.lstat(path).st_dev
        ahead = [os.fspath(path)]
        while ahead:
            with suppress(OSError), os.scandir(ahead.pop()) as entries:
                for entry in entries:
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_ino in seen or status.st_dev != device:
                            continue
                        seen.add(status.st_ino)
                        total += status.st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            ahead.append(entry.path)
    return total


def partial_bytes(core: Core) -> int:
    """Interrupted downloads."""
    total = 0
    for path in core.content.partial():
        with suppress(FileNotFoundError):
            total += disk_bytes(path)
    return total


def ended(container: Container) -> bool:
    """Whether a container can be removed without killing anything."""
    return container.state.status in (Status.CREATED, Status.EXITED, Status.DEAD)
