"""From the store to somewhere else: blobs first, several at once; then manifests, an index after its children.

What is sent is what was pulled, byte for byte: media types, digests and compression stay; but what is called OCI gets
OCI's documents (`Destination`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from scow.engine import images
from scow.engine.core import Core
from scow.engine.neighbours import destination, held_to_errors
from scow.engine.ocinames import all_oci
from scow.engine.types import Phase, Progress, PushResult
from scow.errors import Invalid, NotFound, ScowError, Unsupported
from scow.layers.codecs import sniff
from scow.model.descriptor import HOST_LAYER, OCI_INDEX, OCI_MANIFEST, Descriptor, Document
from scow.model.digest import Digest
from scow.model.fetching import Destination
from scow.model.image import MANIFEST_MAX, Manifest, parse_document
from scow.model.reference import Named, Reference, parse_reference
from scow.state import images as rows

Report = Callable[[Progress], None]
_DEPTH_MAX = 4
_PHASES: dict[str, Phase] = {"exists": "present", "mounted": "mounted", "pushed": "pushed"}


@dataclass(slots=True)
class Cargo:
    """What goes out for one image: blobs in order, each once, and documents with the children before their index."""

    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    documents: list[Document] = field(default_factory=list)

    @property
    def root(self) -> Document:
        """What the name will point at."""
        return self.documents[-1]


async def push(core: Core, name: str, target: str | None, report: Report) -> PushResult:
    """Send a local image to where its name, or `target`, says. Raises NotFound, Invalid, and as `Destination`."""
    transports = core.registry.transports()
    image = images.find(core, name)
    reference = parse_reference(target or name, transports)
    if image is None:
        raise NotFound(f"no such image: {name}", hint=f"`scow tag IMAGE {name}` gives an image this name")
    if isinstance(reference, Named) and reference.tag is None:
        raise Invalid(f"{target or name} can't be pushed to: it has a digest", hint="write name:tag")
    cargo, whole = load_cargo(core, image)
    own = cargo.root.descriptor.digest
    with structlog.contextvars.bound_contextvars(image=str(reference)):
        async with destination(core, reference) as (plugin, place):
            cargo = fitting(core, cargo, place)
            await send(core, plugin, place, cargo, reference, report)
    digest = cargo.root.descriptor.digest
    if isinstance(reference, Named):
        rows.save_image(core.database, image, str(reference), f"{reference.repository}@{digest}")
        images.write_index(core)
    core.events.emit("image", "push", reference.familiar, name=reference.familiar)
    return PushResult(str(reference), digest, len(cargo.root.data), whole, digest != own)


def fitting(core: Core, cargo: Cargo, place: Destination) -> Cargo:
    """The cargo as a place takes it. One that says nothing of it takes both kinds of documents."""
    if not getattr(place, "oci_only", False):
        return cargo
    return Cargo(cargo.blobs, all_oci(cargo.documents, partial(_packing, core)))


def _packing(core: Core, digest: Digest) -> str:
    try:
        with core.content.blob(digest).open("rb") as file:
            return sniff(file.read(4))
    except FileNotFoundError:
        return "none"  # it may not be distributed, and lies elsewhere


async def send(
    core: Core, plugin: str, place: Destination, cargo: Cargo, name: Reference | None, report: Report
) -> None:
    """Everything of one image to an open place; `name` points at its root there."""
    limiter = trio.CapacityLimiter(core.config.parallel_fetches)
    origins = _origins(core, name)
    shown = str(name or "")
    try:
        async with trio.open_nursery() as nursery:
            for blob in cargo.blobs.values():
                report(Progress(shown, blob.digest, "preparing", 0, blob.size))
                nursery.start_soon(_send_blob, core, plugin, place, blob, origins, limiter, shown, report)
    except BaseExceptionGroup as group:
        raise images.most_telling(group) from None
    for document in cargo.documents:
        with held_to_errors(plugin, "publish"):
            await place.manifest(document, name if document is cargo.root else None)


async def _send_blob(
    core: Core,
    plugin: str,
    place: Destination,
    blob: Descriptor,
    origins: dict[Digest, tuple[str, ...]],
    limiter: trio.CapacityLimiter,
    shown: str,
    report: Report,
) -> None:
    path = core.content.blob(blob.digest)

    def sent(count: int) -> None:
        report(Progress(shown, blob.digest, "pushing", count, blob.size))

    async with limiter:
        with held_to_errors(plugin, "publish"):
            came = await place.blob(blob, lambda: path.open("rb"), origins.get(blob.digest, ()), sent)
    report(Progress(shown, blob.digest, _PHASES.get(came, "pushed"), blob.size, blob.size))


def load_cargo(core: Core, image: rows.ImageRow, *, alone: bool = False) -> tuple[Cargo, bool]:
    """All of an image: its index with every platform if all of that is here, else this platform's manifest alone.

    Says which with the second value (true: nothing is left out). Raises NotFound, Corrupt, Unsupported (`host:`).
    """
    if image.root != image.manifest and not alone:
        cargo = Cargo()
        try:
            _collect(core, image.root, "", cargo, 0)
        except (NotFound, Unsupported):
            pass  # most indexes have platforms that nobody pulled
        else:
            return cargo, True
    cargo = Cargo()
    _collect(core, image.manifest, image.media_type, cargo, 0)
    return cargo, image.root == image.manifest


def _collect(core: Core, digest: Digest, media_type: str, cargo: Cargo, depth: int) -> None:
    data = core.content.read(digest, MANIFEST_MAX)
    parsed = parse_document(data, media_type)
    if isinstance(parsed, Manifest):
        _collect_blobs(core, parsed, cargo)
    else:
        if depth == _DEPTH_MAX:
            raise Unsupported(f"{digest} has more than {_DEPTH_MAX} indexes within each other")
        for entry in parsed.entries:
            _collect(core, entry.digest, entry.media_type, cargo, depth + 1)
    # OCI documents needn't say what they are.
    kind = parsed.media_type or media_type or (OCI_MANIFEST if isinstance(parsed, Manifest) else OCI_INDEX)
    document = Document(Descriptor(kind, digest, len(data)), data)
    if all(known.descriptor.digest != digest for known in cargo.documents):
        cargo.documents.append(document)


def _collect_blobs(core: Core, manifest: Manifest, cargo: Cargo) -> None:
    for blob in (*manifest.layers, manifest.config):
        if blob.media_type == HOST_LAYER:
            raise Unsupported(
                "this machine's own root directory can't go out as an image", hint="`scow export` packs a container"
            )
        if blob.urls and any(word in blob.media_type for word in ("foreign", "nondistributable")):
            continue  # whoever pulls gets it from its own place
        if not core.content.has(blob):
            raise NotFound(f"blob {blob.digest} is not in the store", hint="pull the image again")
        cargo.blobs.setdefault(blob.digest, blob)


def _origins(core: Core, name: Reference | None) -> dict[Digest, tuple[str, ...]]:
    """For each blob the repositories of the same registry that, by what is known here, have it already."""
    if not isinstance(name, Named):
        return {}
    found: dict[Digest, dict[str, None]] = {}
    pins = rows.names_of(core.database)
    for image in rows.all_images(core.database):
        repositories = list(_repositories(pins.get(str(image.manifest), ([], []))[1], name))
        if not repositories:
            continue
        try:
            manifest = images.manifest_of(core, image)
        except ScowError:
            continue  # a damaged image is no reason not to push another one
        for blob in (*manifest.layers, manifest.config):
            found.setdefault(blob.digest, {}).update(dict.fromkeys(repositories))
    return {digest: tuple(repositories) for digest, repositories in found.items()}


def _repositories(pins: Iterable[str], name: Named) -> Iterable[str]:
    for pin in pins:
        repository = pin.partition("@")[0]
        if repository.startswith(f"{name.domain}/") and repository != name.repository:
            yield repository
