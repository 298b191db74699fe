"""From a reference to unpacked layers: resolve, fetch, unpack, and the record of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeAlias, cast

import msgspec
import structlog
import trio

from scow.content.ingest import GIVEN_UP, Ingest
from scow.content.stored import StoredBlob
from scow.engine.core import Core
from scow.engine.marking import snapshot_stores
from scow.engine.types import ImageInfo, ImageSummary, Phase, Progress
from scow.errors import Corrupt, Exhausted, Invalid, NotFound, ScowError, Unsupported
from scow.model.descriptor import HOST_LAYER, OCI_INDEX, Descriptor, Document
from scow.model.digest import Digest
from scow.model.fetching import Resolved, Source
from scow.model.image import CONFIG_MAX, MANIFEST_MAX, ImageConfig, Manifest, parse_config, parse_document
from scow.model.platform import Platform
from scow.model.reference import Located, Named, Reference, parse_reference
from scow.model.storage import Blob, Snapshot, SnapshotStore, UnpackRequest
from scow.state import images as rows

Report = Callable[[Progress], None]
#: Seconds between two writes of index.json while many images are brought in: each takes as long as there are images.
_INDEX_EVERY: Final = 1.0
#: By manifest digest: names, and `repository@digest` names.
Names: TypeAlias = dict[str, tuple[list[str], list[str]]]


async def pull(core: Core, name: str, platform: Platform | None, report: Report, driver: str) -> ImageInfo:
    """Make an image local and unpacked for `driver`; what is there already isn't fetched again.

    Raises as the stages do.
    """
    reference = parse_reference(name, core.registry.transports())
    return await bring(core, reference, (reference,), platform, report, driver)


async def bring(
    core: Core,
    reference: Reference,
    names: Collection[Reference],
    platform: Platform | None,
    report: Report,
    driver: str,
    *,
    indexed: bool = True,
) -> ImageInfo:
    """The same for a reference, with the image recorded under other names than its own; without any, it has an ID.

    Whoever brings many leaves them out of index.json (`indexed`), and has it written by `index_at_end`.
    """
    name = str(reference)
    with structlog.contextvars.bound_contextvars(image=str(reference)):
        report(Progress(name, None, "resolving"))
        resolved = await core.stages.resolve(reference, platform or Platform.host())
        report(Progress(name, None, "resolved"))
        manifest = await take_in(core, name, resolved, report, driver)
        _record(core, names, resolved, manifest)
        if indexed:
            write_index(core)
    for each in names:
        core.events.emit("image", "pull", each.familiar, name=each.familiar)
    return info(core, resolved.manifest.descriptor.digest)


async def take_in(core: Core, name: str, resolved: Resolved, report: Report, driver: str) -> Manifest:
    """Fetch and unpack what isn't there of a resolved image, and record nothing. Raises as the stages do."""
    manifest = parse_document(resolved.manifest.data, resolved.manifest.descriptor.media_type)
    if not isinstance(manifest, Manifest):
        raise Corrupt(f"{name}: the registry gave an index where a manifest was asked for")
    _check_origin(manifest, resolved.source)
    for document in (*resolved.indexes, resolved.manifest):
        core.content.put(document)
    layers = None
    try:
        config = await _fetch_config(core, manifest, resolved.source)
        layers = _Layers(core, name, manifest, config, resolved.source, driver, report)
        await layers.bring()
    except (Corrupt, Unsupported):
        refused = manifest.config if layers is None else layers.refused
        if refused is not None and core.content.has(refused):
            # It came as it was sent: it is the image that is wrong, and no further try will be better.
            _discard(core, resolved, manifest)
        raise
    return manifest


def _discard(core: Core, resolved: Resolved, manifest: Manifest) -> None:
    """Let a sweep take what there is of an image that can't be used; what others need stays."""
    blobs = {document.descriptor.digest for document in (*resolved.indexes, resolved.manifest)}
    blobs |= {blob.digest for blob in (manifest.config, *manifest.layers)}
    layers: tuple[Digest, ...] = ()
    with suppress(ScowError):
        layers = parse_config(core.content.read(manifest.config.digest, CONFIG_MAX)).chain
    garbage: list[tuple[rows.Kind, Digest]] = [("blob", digest) for digest in blobs]
    rows.forget(core.database, (), (), [*garbage, *(("layer", digest) for digest in layers)])


def _check_origin(manifest: Manifest, source: Source) -> None:
    """Only the host itself may offer the host's root directory as a layer."""
    if source.plugin != "host" and any(layer.media_type == HOST_LAYER for layer in manifest.layers):
        raise Corrupt(f"an image from {source.location} claims this machine's root directory as a layer")


async def _fetch_config(core: Core, manifest: Manifest, source: Source) -> ImageConfig:
    if manifest.config.size > CONFIG_MAX:
        raise Corrupt(f"image configuration is larger than {CONFIG_MAX} bytes")
    async with core.content.ingest(manifest.config) as ingest:
        if not ingest.present:
            await _fetch(core, source, ingest)
    config = parse_config(core.content.read(manifest.config.digest, CONFIG_MAX))
    if len(config.diff_ids) != len(manifest.layers):
        raise Corrupt(f"the image names {len(config.diff_ids)} diff IDs for {len(manifest.layers)} layers")
    return config


async def _fetch(core: Core, source: Source, ingest: Ingest) -> None:
    if ingest.descriptor.data is not None:
        await ingest.restart()
        await ingest.write(ingest.descriptor.data)
    elif ingest.offset < ingest.descriptor.size or ingest.descriptor.size == 0:
        await core.stages.fetch(source, ingest.descriptor, ingest)
    await ingest.commit()


class _Coming:
    """A blob on its way: `blob` from the moment it can be read, `landed` when all of it is there."""

    def __init__(self, layer: Descriptor) -> None:
        self.layer = layer
        self._ready = trio.Event()
        self._blob: Blob | None = None
        self.landed = trio.Event()

    def begin(self, blob: Blob) -> None:
        self._blob = blob
        self._ready.set()

    async def readable(self) -> Blob:
        """Wait until it can be read, though not all of it may be there."""
        await self._ready.wait()
        assert self._blob is not None
        return self._blob


@dataclass(slots=True)
class _Layers:
    """The layers of one pull: several are fetched at once, and unpacked in order while they come."""

    core: Core
    name: str
    manifest: Manifest
    config: ImageConfig
    source: Source
    driver: str
    report: Report
    #: The layer that couldn't be unpacked.
    refused: Descriptor | None = None
    #: The same layer twice in one image (empty ones, mostly) is fetched once.
    _coming: dict[Digest, _Coming] = field(default_factory=dict)

    async def bring(self) -> None:
        """Fetch and unpack what isn't there. Raises the first failure; what was complete stays."""
        for layer in self.manifest.layers:
            self._tell(layer, "waiting")
            self._coming.setdefault(layer.digest, _Coming(layer))
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._fetch_all)
                await self._unpack_all()
        except BaseExceptionGroup as group:
            raise most_telling(group) from None

    async def _fetch_all(self) -> None:
        """Several at once, and the lowest first: nothing can be unpacked before it is there."""
        places = trio.Semaphore(self.core.config.parallel_fetches)
        async with trio.open_nursery() as nursery:
            for coming in self._coming.values():
                await places.acquire()
                nursery.start_soon(self._bring_blob, coming, places)

    async def _bring_blob(self, coming: _Coming, places: trio.Semaphore) -> None:
        layer = coming.layer
        if layer.media_type == HOST_LAYER or self.core.content.has(layer):
            coming.begin(StoredBlob(layer, self.core.content.blob(layer.digest)))
        else:
            async with self.core.content.ingest(layer) as ingest:
                coming.begin(ingest)
                if not ingest.present:
                    sink = _Watched(ingest, lambda: self._tell(layer, "downloading", ingest.offset))
                    await _fetch(self.core, self.source, cast(Ingest, sink))
            self._tell(layer, "downloaded", layer.size)
        coming.landed.set()
        places.release()

    async def _unpack_all(self) -> None:
        parents: tuple[Snapshot, ...] = ()
        for index, (layer, chain_id) in enumerate(zip(self.manifest.layers, self.config.chain, strict=True)):
            snapshot = find_snapshot(self.core, self.driver, chain_id)
            if snapshot is None:
                snapshot = await self._unpack(layer, self.config.diff_ids[index], chain_id, parents)
                self._tell(layer, "complete", layer.size)
            else:
                self._tell(layer, "exists", layer.size)
            parents = (*parents, snapshot)

    async def _unpack(
        self, layer: Descriptor, diff_id: Digest, chain_id: Digest, parents: tuple[Snapshot, ...]
    ) -> Snapshot:
        coming = self._coming[layer.digest]
        blob = await coming.readable()
        self._tell(layer, "unpacking")
        request = UnpackRequest(self.driver, layer, diff_id, chain_id, parents, blob)
        try:
            with _naming(layer):
                return await self.core.stages.unpack(request)
        except (Corrupt, Unsupported):
            self.refused = layer
            if isinstance(blob, Ingest) and blob.offset == layer.size:
                # All has come, and is being checked: only bytes that are right show that the image is wrong.
                await coming.landed.wait()
            raise

    def _tell(self, layer: Descriptor, phase: Phase, current: int = 0) -> None:
        self.report(Progress(self.name, layer.digest, phase, current, layer.size))


@contextmanager
def _naming(layer: Descriptor) -> Iterator[None]:
    """Say which layer an error is about, where the error itself doesn't."""
    try:
        yield
    except (Corrupt, Exhausted, Unsupported) as error:
        if layer.digest.hex in error.message:
            raise
        raise type(error)(f"layer {layer.digest}: {error.message}", hint=error.hint) from error


class _Watched:
    """An ingest that tells about each write."""

    def __init__(self, ingest: Ingest, tell: Callable[[], None]) -> None:
        self._ingest = ingest
        self._tell = tell

    def __getattr__(self, name: str) -> object:
        return getattr(self._ingest, name)

    async def write(self, data: bytes) -> None:
        await self._ingest.write(data)
        self._tell()


async def unpack_stored(core: Core, manifest: Manifest, config: ImageConfig, driver: str) -> tuple[Snapshot, ...]:
    """The snapshots of a local image for a storage driver, made from the blobs in the store where they are missing."""
    parents: tuple[Snapshot, ...] = ()
    for layer, diff_id, chain_id in zip(manifest.layers, config.diff_ids, config.chain, strict=True):
        snapshot = find_snapshot(core, driver, chain_id)
        if snapshot is None:
            blob = StoredBlob(layer, core.content.blob(layer.digest))
            if layer.media_type != HOST_LAYER and not core.content.has(layer):
                raise NotFound(f"layer {layer.digest} is not in the store any more", hint="pull the image again")
            with _naming(layer):
                snapshot = await core.stages.unpack(UnpackRequest(driver, layer, diff_id, chain_id, parents, blob))
        parents = (*parents, snapshot)
    return parents


def find_snapshot(core: Core, driver: str, chain_id: Digest) -> Snapshot | None:
    """A committed snapshot that the driver can mount, whoever made it."""
    for name in (driver, "host"):
        try:
            store = cast(SnapshotStore, core.registry.get("unpack", name).instance)
        except NotFound:
            continue
        snapshot = store.find(chain_id) if store is not None else None
        if snapshot is not None:
            return snapshot
    return None


def _record(core: Core, names: Collection[Reference], resolved: Resolved, manifest: Manifest) -> None:
    image = rows.ImageRow(
        resolved.manifest.descriptor.digest,
        manifest.config.digest,
        resolved.root.digest,
        resolved.manifest.descriptor.media_type,
        manifest.size,
        time.time(),
    )
    fetched = resolved.reference if isinstance(resolved.reference, Named) else None
    for name in names or (None,):
        # Only what came out of a repository is known to be in it under this digest.
        pinned = f"{fetched.repository}@{resolved.root.digest}" if fetched is not None and name is not None else None
        rows.save_image(core.database, image, str(name) if name is not None else None, pinned)


class _Kind(msgspec.Struct, rename="camel"):
    media_type: str = ""


_kinds: Final = msgspec.json.Decoder(_Kind)


@contextmanager
def index_at_end(core: Core) -> Iterator[Callable[[], None]]:
    """For what names many images: index.json is written at the end, however it ends. Raises Exhausted.

    Gives what is to be called after each image: it writes once in a while, so that a kill -9 leaves little behind.
    """
    due = time.monotonic() + _INDEX_EVERY

    def after_image() -> None:
        nonlocal due
        if time.monotonic() >= due:
            write_index(core)
            due = time.monotonic() + _INDEX_EVERY

    try:
        yield after_image
    except BaseException:
        with suppress(ScowError):  # what went wrong first is told
            write_index(core)
        raise
    write_index(core)


def write_index(core: Core) -> None:
    """Rewrite index.json from the names in the database. Raises Exhausted."""

    def entries() -> Iterator[dict[str, object]]:
        names = rows.names_of(core.database)
        for image in rows.all_images(core.database):
            plain = names.get(str(image.manifest), ([], []))[0]
            entry = _index_entry(core, image) if plain else {}
            for name in plain:
                yield {**entry, "annotations": {"org.opencontainers.image.ref.name": name}}

    core.content.write_index(entries)


def _index_entry(core: Core, image: rows.ImageRow) -> dict[str, object]:
    path = core.content.blob(image.root)
    media_type, size = image.media_type, 0
    with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):  # damaged: fsck says so
        size = path.stat().st_size
        if image.root != image.manifest:
            media_type = _kinds.decode(path.read_bytes()).media_type or OCI_INDEX
    return {"mediaType": media_type, "digest": str(image.root), "size": size}


def find(core: Core, name: str) -> rows.ImageRow | None:
    """A local image by name, ID or beginning of an ID; None when there is none. Raises Invalid."""
    try:
        reference: Reference | None = parse_reference(name, core.registry.transports())
    except Invalid:
        reference = None
    found = None
    if isinstance(reference, Located):
        found = rows.image_by_name(core.database, str(reference))
    elif reference is not None:
        for candidate in (str(reference), f"{reference.repository}@{reference.digest}"):
            found = found or rows.image_by_name(core.database, candidate)
    bare = name.removeprefix("sha256:")
    is_id = bool(bare) and set(bare) <= set("0123456789abcdef")
    if found is None and is_id:
        found = rows.image_by_id(core.database, bare)
    if found is None and reference is None and not is_id:
        parse_reference(name, core.registry.transports())  # say what is wrong with the name
    return found


def manifest_of(core: Core, image: rows.ImageRow) -> Manifest:
    """An image's manifest from the store. Raises NotFound, Corrupt."""
    document = parse_document(core.content.read(image.manifest, MANIFEST_MAX), image.media_type)
    if not isinstance(document, Manifest):
        raise Corrupt(f"{image.manifest} in the store is no image manifest")
    return document


def config_of(core: Core, image: rows.ImageRow) -> ImageConfig:
    """An image's configuration from the store. Raises NotFound, Corrupt."""
    return parse_config(core.content.read(image.config, CONFIG_MAX))


def info(core: Core, manifest_digest: Digest) -> ImageInfo:
    """Everything about one local image. Raises NotFound."""
    image = rows.image_by_id(core.database, manifest_digest.hex)
    if image is None:
        raise NotFound(f"no such image: {manifest_digest}")
    found = describe(core, image, rows.names_of(core.database))
    if image.facts is None:
        rows.note_facts(core.database, [(image.manifest, rows.Facts(found.created, found.size, found.labels))])
    return found


def describe(core: Core, image: rows.ImageRow, names: Names) -> ImageInfo:
    """An image row with what its blobs say. Raises NotFound, Corrupt."""
    config, manifest = config_of(core, image), manifest_of(core, image)
    facts = image.facts or _facts_of(core, config, manifest)
    return ImageInfo(**_shown(core, image, facts, names), manifest=manifest, config=config)


def summaries(core: Core) -> list[ImageSummary]:
    """All images, the newest first. What a list shows is noted at the first look, and no image is opened after that."""
    names, found, noted = rows.names_of(core.database), [], []
    for image in rows.all_images(core.database):
        facts = image.facts
        if facts is None:
            try:
                facts = _facts_of(core, config_of(core, image), manifest_of(core, image))
                noted.append((image.manifest, facts))
            except ScowError:  # damaged: the others are listed all the same, and fsck says what is wrong
                facts = rows.Facts(0.0, image.size)
        found.append(ImageSummary(**_shown(core, image, facts, names)))
    if noted:
        rows.note_facts(core.database, noted)
    return found


def _shown(core: Core, image: rows.ImageRow, facts: rows.Facts, names: Names) -> dict[str, Any]:
    plain, pinned = names.get(str(image.manifest), ([], []))
    return {
        "id": image.config,
        "manifest_digest": image.manifest,
        "names": tuple(familiar(core, name) for name in plain),
        "repo_digests": tuple(pinned),
        "created": facts.created,
        "pulled": image.pulled,
        "size": facts.size,
        "labels": facts.labels,
    }


def _facts_of(core: Core, config: ImageConfig, manifest: Manifest) -> rows.Facts:
    size = sum(layer_sizes(core, config.chain, [layer.size for layer in manifest.layers]))
    return rows.Facts(seconds(config.created), size, config.labels)


def layer_sizes(core: Core, chain: tuple[Digest, ...], packed: list[int]) -> list[int]:
    """Bytes of each layer, unpacked where it is, else as it was transferred."""
    stores = dict(snapshot_stores(core))
    sizes, below = [], 0
    for digest, size in zip(chain, packed, strict=False):
        name = next((name for name, store in stores.items() if store.find(digest) is not None), None)
        whole = stores[name].usage(digest) if name is not None else size
        # Plain copies hold all that is below them as well.
        sizes.append(max(whole - below, 0) if name == "native" else whole)
        below = whole
    return sizes


def familiar(core: Core, name: str) -> str:
    """A full name in its short form."""
    return parse_reference(name, core.registry.transports()).familiar


def seconds(created: str | None) -> float:
    """RFC 3339 as seconds since the epoch; 0 for what is none."""
    try:
        return datetime.fromisoformat(created).timestamp() if created else 0.0
    except ValueError:
        return 0.0


def most_telling(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Of what failed at once: the error of the sender, rather than that of those who waited for its bytes."""
    ours, rest = group.split(ScowError)
    if ours is None:
        return group
    leaves: list[BaseException] = []
    _collect(ours, leaves)
    first = min(leaves, key=_gave_up)
    # When nothing but waiting has failed, whoever fetched was cancelled, and so are we.
    return rest if rest is not None and _gave_up(first) else first


def _gave_up(error: BaseException) -> bool:
    return isinstance(error, ScowError) and error.message == GIVEN_UP


def _collect(error: BaseException, leaves: list[BaseException]) -> None:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _collect(inner, leaves)
    else:
        leaves.append(error)


__all__ = ["Document", "config_of", "describe", "find", "find_snapshot", "info", "manifest_of", "pull", "unpack_stored"]
