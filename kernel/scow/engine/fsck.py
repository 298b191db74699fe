"""fsck: every blob against its digest, every layer against what its blob unpacks to; and mending by fetching again.

Directories have no digest of their own: each image is unpacked once more beside the store, and the two are compared.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from scow.engine import images
from scow.engine.core import Core
from scow.engine.garbage import in_thread
from scow.engine.marking import parts_of, snapshot_stores
from scow.engine.types import Check, Damage
from scow.errors import NotFound, ScowError
from scow.layers.writer import TarWriter, write_tree
from scow.model.container import Status
from scow.model.digest import Digest
from scow.model.platform import Platform
from scow.model.reference import Located, Reference, parse_reference
from scow.model.storage import Snapshot, SnapshotForm
from scow.paths import Paths
from scow.plugins import Registry
from scow.stages import Stages
from scow.state import containers
from scow.state import images as rows

_PIECE: Final = 1 << 20
#: What a damaged blob is called while a good one is fetched.
_DAMAGED: Final = ".damaged"
_OPAQUE: Final = "trusted.overlay.opaque"


async def check(core: Core, *, layers: bool = True) -> Check:
    """Look at everything; changes nothing. The caller keeps sweeps away."""
    _settle_all(core)
    count, damages = await in_thread(core, _check_blobs)
    bad = {damage.digest for damage in damages}
    checked: set[tuple[str, Digest]] = set()
    if layers:
        for row in rows.all_images(core.database):
            parts = parts_of(core, row.manifest, row.root)
            if not (parts.blobs & bad) and parts.problem is None:
                damages += await _check_layers(core, row, checked)
    return Check(count, len(checked), tuple(damages))


def _check_blobs(core: Core) -> tuple[int, list[Damage]]:
    there = core.content.blobs()
    owners = _owners(core)
    found = []
    for digest in sorted(there):
        if (problem := _blob_problem(core, digest)) is not None:
            found.append(Damage("blob", digest, problem, tuple(sorted(owners.get(digest, ())))))
    for digest, names in sorted(owners.items()):
        if digest not in there and not _optional(core, digest):
            found.append(Damage("blob", digest, "is missing", tuple(sorted(names))))
    return len(there), found


def _optional(core: Core, digest: Digest) -> bool:
    """Indexes name the manifests of other platforms, and a host: image a layer that nobody stores."""
    for row in rows.all_images(core.database):
        if digest in (row.manifest, row.config, row.root):
            return False
        with suppress(ScowError):
            from scow.model.descriptor import HOST_LAYER

            manifest = images.manifest_of(core, row)
            if any(layer.digest == digest and layer.media_type != HOST_LAYER for layer in manifest.layers):
                return False
    return True


def _owners(core: Core) -> dict[Digest, set[str]]:
    """By which images each blob is needed."""
    owners: dict[Digest, set[str]] = {}
    names = rows.names_of(core.database)
    for row in rows.all_images(core.database):
        for digest in {*parts_of(core, row.manifest, row.root).blobs, row.config}:
            owners.setdefault(digest, set()).add(_title(core, row, names))
    return owners


def _title(core: Core, row: rows.ImageRow, names: dict[str, tuple[list[str], list[str]]]) -> str:
    plain = names.get(str(row.manifest), ([], []))[0]
    return images.familiar(core, plain[0]) if plain else row.config.short


def _blob_problem(core: Core, digest: Digest) -> str | None:
    running = hashlib.new(digest.algorithm)
    try:
        with core.content.blob(digest).open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                running.update(piece)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return None if running.hexdigest() == digest.hex else f"has the digest {running.hexdigest()}"


async def _check_layers(core: Core, row: rows.ImageRow, checked: set[tuple[str, Digest]]) -> list[Damage]:
    """Unpack one image again, for each driver that has it, and compare."""
    title = _title(core, row, rows.names_of(core.database))
    manifest, config = images.manifest_of(core, row), images.config_of(core, row)
    found = []
    chain = set(config.chain)
    for name, store in snapshot_stores(core):
        there = {digest for digest in store.snapshots() if digest in chain and (name, digest) not in checked}
        if not there:
            continue
        with _Beside(core) as beside:
            for snapshot in await images.unpack_stored(beside, manifest, config, name):
                mine = store.find(snapshot.chain_id) if snapshot.chain_id in there else None
                if mine is None:
                    continue
                checked.add((name, snapshot.chain_id))
                ours, fresh = [await in_thread(core, _digest, each) for each in (mine, snapshot)]
                if ours != fresh:
                    problem = f"as {name} has unpacked it, is not what its blob says"
                    found.append(Damage("layer", snapshot.chain_id, problem, (title,), driver=name))
    return found


class _Beside:
    """The same engine with storage of its own, beside the real one, for a `with` block."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def __enter__(self) -> Core:
        core = self._core
        self._place = Path(tempfile.mkdtemp(prefix="fsck-", dir=core.paths.root))
        registry = Registry(Paths(self._place / "root", self._place / "run"), core.config)
        return replace(core, registry=registry, stages=Stages(registry, core.events))

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._place, ignore_errors=True)


def _digest(core: Core, snapshot: Snapshot) -> str:
    running = hashlib.sha256()
    try:
        if snapshot.form is SnapshotForm.FILE:
            with snapshot.path.open("rb", buffering=0) as file:
                while piece := file.read(_PIECE):
                    running.update(piece)
            return running.hexdigest()
        fd = os.open(snapshot.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_tree(TarWriter(running.update), fd, b"", b".")
        finally:
            os.close(fd)
        for path, _, _ in sorted(os.walk(snapshot.path)):
            with suppress(OSError):
                running.update(os.fsencode(path.removeprefix(str(snapshot.path))) + os.getxattr(path, _OPAQUE))
    except OSError as error:
        return f"{error.strerror}"
    return running.hexdigest()


async def repair(core: Core, damages: Iterable[Damage]) -> list[Damage]:
    """Take damaged things away and bring them in again. Gives each damage with what became of it.

    A damaged blob that can't be fetched stays as it is: a part of it may be worth something to somebody. What nobody
    needs goes.
    """
    damages = list(damages)
    for damage in damages:
        if damage.kind == "blob":
            with suppress(FileNotFoundError):
                core.content.blob(damage.digest).rename(_aside(core, damage.digest))
    try:
        return await _repair(core, damages)
    finally:
        for damage in damages:
            if damage.kind == "blob":
                _settle(core, damage.digest, needed=bool(damage.images))


def _aside(core: Core, digest: Digest) -> Path:
    blob = core.content.blob(digest)
    return blob.with_name(f".{blob.name}{_DAMAGED}")


def _settle(core: Core, digest: Digest, *, needed: bool) -> None:
    """A damaged blob goes back to its place, unless a good one lies there now or nobody needs it."""
    if needed and not core.content.blob(digest).exists():
        with suppress(FileNotFoundError):
            _aside(core, digest).rename(core.content.blob(digest))
    _aside(core, digest).unlink(missing_ok=True)


def _settle_all(core: Core) -> None:
    """What a killed repair had put aside."""
    for path in core.content.path.glob(f"blobs/*/.*{_DAMAGED}"):
        with suppress(ScowError):
            _settle(core, Digest(path.parent.name, path.name[1 : -len(_DAMAGED)]), needed=True)


async def _repair(core: Core, damages: list[Damage]) -> list[Damage]:
    problems: dict[str, str | None] = {}
    for title in dict.fromkeys(title for damage in damages for title in damage.images):
        problems[title] = await _bring(core, title, [damage for damage in damages if title in damage.images])
    done = []
    for damage in damages:
        failed = [problem for title in damage.images if (problem := problems[title]) is not None]
        done.append(replace(damage, repaired=not failed, answer=failed[0] if failed else ""))
    return done


async def _bring(core: Core, title: str, damages: list[Damage]) -> str | None:
    """Fetch and unpack one image again; None when all is well, else why not."""
    row = images.find(core, title)
    if row is None:
        return "the image is gone"
    try:
        layers = [damage for damage in damages if damage.kind == "layer"]
        if layers and (user := _runs_on(core, {damage.digest for damage in layers})):
            return f"stop the container {user} first"
        for damage in layers:
            for name, store in snapshot_stores(core):
                if name == damage.driver:
                    await in_thread(core, lambda _, store=store, damage=damage: store.remove(damage.digest))
        if any(damage.kind == "blob" for damage in damages):
            await _fetch(core, row)
        for driver in {damage.driver for damage in layers}:
            await images.unpack_stored(core, images.manifest_of(core, row), images.config_of(core, row), driver)
    except ScowError as error:
        return error.message
    return None


async def _fetch(core: Core, row: rows.ImageRow) -> None:
    """Bring in again what is missing of an image. Names don't move, and no other image comes in. Raises ScowError."""
    platform = Platform.host()
    with suppress(ScowError):
        platform = images.config_of(core, row).platform
    sources = list(_sources(core, row))
    if not sources:
        raise NotFound("it was made or loaded here, and is nowhere to be fetched from")
    driver = core.registry.pick("mount", "").name
    wrong: ScowError | None = None
    for source in sources:
        try:
            resolved = await core.stages.resolve(source, platform)
            if resolved.manifest.descriptor.digest == row.manifest:
                await images.take_in(core, str(source), resolved, lambda _: None, driver)
                return
            wrong = NotFound(f"{source.familiar} is another image now")
        except ScowError as error:
            wrong = error
    assert wrong is not None
    raise wrong


def _sources(core: Core, row: rows.ImageRow) -> Iterator[Reference]:
    """Where an image came from: repositories that had it under its digest, and places outside of registries.

    A mere tag says nothing: what was committed here as `app:1` isn't the registry's `app:1`.
    """
    names, pins = rows.names_of(core.database).get(str(row.manifest), ([], []))
    transports = core.registry.transports()
    yield from (parse_reference(pin, transports) for pin in pins)
    for name in names:
        reference = parse_reference(name, transports)
        if isinstance(reference, Located):
            yield reference


def _runs_on(core: Core, layers: set[Digest]) -> str | None:
    wanted = {str(layer) for layer in layers}
    for each in containers.listing(core.database, (Status.RUNNING, Status.PAUSED)):
        if wanted & set(each.spec.layers):
            return each.spec.name
    return None
