"""Names and images taken apart: tag, rmi, image prune, history. An image never changes; a tag is a pointer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from scow.engine import images
from scow.engine.core import Core
from scow.engine.garbage import Swept, sweep
from scow.engine.marking import parts_of
from scow.engine.types import HistoryLine, ImageInfo, PlatformEntry, Removal
from scow.errors import Conflict, Invalid, NotFound
from scow.model.container import Container, Status
from scow.model.digest import Digest
from scow.model.image import MANIFEST_MAX, HistoryEntry, Index, parse_document
from scow.model.reference import Named, parse_reference
from scow.state import containers
from scow.state import images as rows


def tag(core: Core, source: str, target: str) -> str:
    """Let the name `target` point at the image `source`; gives the full name. Raises NotFound, Invalid."""
    image = existing(core, source)
    name = tag_name(core, target)
    rows.point(core.database, name, image.manifest)
    images.write_index(core)
    core.events.emit("image", "tag", str(image.config), name=images.familiar(core, name))
    return name


def tag_name(core: Core, target: str) -> str:
    """The full name of a tag to be set. Raises Invalid for what can be none."""
    name = parse_reference(target, core.registry.transports())
    if not isinstance(name, Named):
        raise Invalid(f"{target!r} can't be a tag: it names a place, not a repository")
    if name.digest is not None:
        raise Invalid(f"{target!r} can't be a tag: it has a digest", hint="write name:tag")
    return str(name)


def existing(core: Core, name: str) -> rows.ImageRow:
    """A local image by any of its names. Raises NotFound, Invalid."""
    found = images.find(core, name)
    if found is None:
        raise NotFound(f"no such image: {name}", hint="`scow images` lists what is here")
    return found


def remove_image(core: Core, text: str, *, force: bool = False, prune: bool = True) -> Removal:
    """Take a name away, and the image with its last name; or, when `text` is an ID, the image with all its names.

    Blocks. Raises NotFound, Invalid, Conflict (a container uses it: by force only if none of them runs; an ID with
    names in several repositories).
    """
    name = _as_name(core, text)
    row = rows.image_by_name(core.database, name) if name is not None else existing(core, text)
    assert row is not None
    names, pins = rows.names_of(core.database).get(str(row.manifest), ([], []))
    if name is None:
        repositories = {_repository(core, each) for each in (*names, *pins)}
        if len(repositories) > 1 and not force:
            listed = ", ".join(images.familiar(core, each) for each in names or pins)
            raise Conflict(
                f"image {row.config.short} has names in several repositories: {listed}",
                hint="remove them one by one, or all with -f",
            )
        return _delete(core, rows.images_of_id(core.database, row.config), text, force=force, prune=prune)
    if set(names) - {name}:
        return _untag(core, row, name, names, pins)
    return _delete(core, [row], text, force=force, prune=prune)


def _as_name(core: Core, text: str) -> str | None:
    """The full name that `text` is, if there is one; None when it is an ID."""
    try:
        reference = parse_reference(text, core.registry.transports())
    except Invalid:
        return None
    candidates = [str(reference)]
    if isinstance(reference, Named) and reference.digest is not None:
        candidates.append(f"{reference.repository}@{reference.digest}")
    return next((each for each in candidates if rows.image_by_name(core.database, each) is not None), None)


def _untag(core: Core, row: rows.ImageRow, name: str, names: list[str], pins: list[str]) -> Removal:
    """Other names are left, and with them the image. The last tag of a repository takes its digests with it."""
    gone = [name]
    repository = _repository(core, name)
    left = {_repository(core, each) for each in names if each != name}
    if name in names and repository not in left:
        gone += [pin for pin in pins if _repository(core, pin) == repository]
    rows.forget(core.database, gone, (), ())
    images.write_index(core)
    _tell_untagged(core, row, gone)
    return Removal(untagged=tuple(images.familiar(core, each) for each in gone))


def _delete(core: Core, doomed: list[rows.ImageRow], text: str, *, force: bool, prune: bool) -> Removal:
    _check_unused(core, doomed, text, force=force)
    known = rows.names_of(core.database)
    gone = []
    garbage: list[tuple[rows.Kind, Digest]] = []
    for row in doomed:
        names, pins = known.get(str(row.manifest), ([], []))
        gone += [*names, *pins]
        parts = parts_of(core, row.manifest, row.root)
        garbage += [("blob", digest) for digest in sorted({*parts.blobs, row.config})]
        garbage += [("layer", digest) for digest in parts.layers]
    rows.forget(core.database, (), [row.manifest for row in doomed], garbage)
    images.write_index(core)
    _tell_untagged(core, doomed[0], gone)
    core.events.emit("image", "delete", str(doomed[0].config), name=str(doomed[0].config))
    swept = sweep(core) if prune else Swept()
    # As docker does: the image, then its layers from the top down.
    order = [digest for kind, digest in garbage if kind == "layer" and digest in swept.layers]
    deleted = (doomed[0].config, *reversed(list(dict.fromkeys(order))))
    return Removal(
        untagged=tuple(images.familiar(core, each) for each in gone),
        deleted=tuple(str(digest) for digest in deleted),
        bytes=swept.bytes,
        postponed=swept.postponed,
    )


def users(core: Core, manifests: Iterable[Digest]) -> list[Container]:
    """The containers that were made from one of these images."""
    wanted = {str(manifest) for manifest in manifests}
    return [each for each in containers.listing(core.database) if each.spec.manifest in wanted]


def _check_unused(core: Core, doomed: list[rows.ImageRow], text: str, *, force: bool) -> None:
    using = users(core, [row.manifest for row in doomed])
    running = [each for each in using if each.state.status in (Status.RUNNING, Status.PAUSED)]
    for some, word, way in (
        (running, "running ", "stop and remove it first"),
        ([] if force else using, "", "remove it first, or use -f"),
    ):
        if some:
            who = ", ".join(f"{each.spec.name} ({each.spec.id[:12]})" for each in some[:5])
            more = f" and {len(some) - 5} more" if len(some) > 5 else ""
            raise Conflict(f"image {text} is in use by the {word}container {who}{more}", hint=way)


def _tell_untagged(core: Core, row: rows.ImageRow, names: Iterable[str]) -> None:
    for name in names:
        core.events.emit("image", "untag", str(row.config), name=images.familiar(core, name))


def _repository(core: Core, name: str) -> str:
    reference = parse_reference(name, core.registry.transports())
    return reference.repository if isinstance(reference, Named) else str(reference)


def prune_images(core: Core, *, everything: bool = False, wanted: Callable[[ImageInfo], bool] | None = None) -> Removal:
    """Remove the images without a name that no container uses; with `everything`, all that no container uses.

    `wanted` chooses among them. Blocks.
    """
    used = {container.spec.manifest for container in containers.listing(core.database)}
    known = rows.names_of(core.database)
    total = Removal()
    for row in rows.all_images(core.database):
        if str(row.manifest) in used or (not everything and known.get(str(row.manifest), ([], []))[0]):
            continue
        with suppress(Conflict, NotFound):
            if wanted is not None and not wanted(images.describe(core, row, known)):
                continue
            total += _delete(core, [row], str(row.config), force=False, prune=False)
    swept = sweep(core)
    layers = tuple(str(layer) for layer in swept.layers)
    return total + Removal(deleted=layers, bytes=swept.bytes, postponed=swept.postponed)


def platforms(core: Core, name: str) -> tuple[Digest, tuple[PlatformEntry, ...]]:
    """What an image's name stands for: an index's digest and its images, or a manifest alone. Raises NotFound."""
    row = existing(core, name)
    here = {each.manifest: each.config for each in rows.all_images(core.database)}
    if row.root != row.manifest:
        index = parse_document(core.content.read(row.root, MANIFEST_MAX), "")
        if isinstance(index, Index):
            return row.root, tuple(
                PlatformEntry(entry.platform, entry.digest, here.get(entry.digest)) for entry in index.runnable()
            )
    alone = PlatformEntry(images.config_of(core, row).platform, row.manifest, row.config)
    return row.manifest, (alone,)


def history(core: Core, name: str) -> list[HistoryLine]:
    """What made an image, the last step first. Raises NotFound, Invalid, Corrupt."""
    row = existing(core, name)
    config, manifest = images.config_of(core, row), images.manifest_of(core, row)
    names = rows.names_of(core.database).get(str(row.manifest), ([], []))[0]
    entries = list(config.history)
    missing = len(config.diff_ids) - sum(not entry.empty_layer for entry in entries)
    # Tools that append layers often write nothing down, or less than they do: a line for each layer beyond.
    entries += [HistoryEntry(None, "", "", "", False) for _ in range(missing)]
    sizes = iter(images.layer_sizes(core, config.chain, [layer.size for layer in manifest.layers]))
    lines = [
        HistoryLine(
            id=None,
            created=images.seconds(entry.created),
            created_by=entry.created_by,
            comment=entry.comment,
            size=0 if entry.empty_layer else next(sizes, 0),
            names=(),
        )
        for entry in entries
    ]
    lines.reverse()
    top = lines[0] if lines else HistoryLine(None, images.seconds(config.created), "", "", 0, ())
    shown = tuple(images.familiar(core, each) for each in names)
    first = HistoryLine(str(row.config), top.created, top.created_by, top.comment, top.size, shown)
    return [first, *lines[1:]]
