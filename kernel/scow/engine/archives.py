"""Images in files: saved to and loaded from archives by the plugins that know their formats.

An archive that comes compressed, or out of a pipe, is first put down plain in a file without a name, which goes when
nobody has it open any more, a kill -9 included.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import trio

from scow.content.store import disk_errors
from scow.engine import images
from scow.engine.core import Core
from scow.engine.neighbours import archives, destination, held_to_errors
from scow.engine.publish import fitting, load_cargo, send
from scow.engine.types import Loaded, Progress
from scow.errors import Invalid, NotFound
from scow.layers.codecs import plain, sniff
from scow.model.fetching import Contained
from scow.model.platform import Platform
from scow.model.reference import Located, Named, Reference, parse_reference
from scow.state import images as rows

Report = Callable[[Progress], None]
_HEAD: Final = 4


async def save(core: Core, names: Sequence[str], transport: str, path: str, report: Report) -> tuple[str, ...]:
    """Write local images into one place of a transport (`docker-archive`); gives those that have another digest there.

    Raises NotFound, Invalid, Exhausted.
    """
    if transport not in core.registry.transports():
        raise Invalid(f"there is no format {transport!r}", hint=f"there are {', '.join(_formats(core))}")
    cargoes = []
    for name in names:
        image = images.find(core, name)
        if image is None:
            raise NotFound(f"no such image: {name}", hint=f"`scow pull {name}` fetches it")
        cargoes.append((load_cargo(core, image, alone=True)[0], _tagged(core, name)))
    changed = []
    async with destination(core, Located(transport, path)) as (plugin, place):
        for name, (cargo, reference) in zip(names, cargoes, strict=True):
            sent = fitting(core, cargo, place)
            await send(core, plugin, place, sent, reference, report)
            if sent.root.descriptor.digest != cargo.root.descriptor.digest:
                changed.append(name)
    return tuple(changed)


def _formats(core: Core) -> list[str]:
    return [name for name, _ in archives(core)]


def _tagged(core: Core, name: str) -> Reference | None:
    """The name that an image keeps in an archive; IDs and digests are none."""
    try:
        reference = parse_reference(name, core.registry.transports())
    except Invalid:
        return None
    tagged = isinstance(reference, Named) and reference.tag is not None
    # `abc` may be an ID's beginning as well as a repository: the database knows.
    return reference if tagged and rows.image_by_name(core.database, str(reference)) is not None else None


async def load(
    core: Core, source: BinaryIO, platform: Platform | None, report: Report, driver: str
) -> tuple[Loaded, ...]:
    """Take in every image of an archive, under the names that it had. Raises Invalid (no archive), Corrupt."""
    async with _plain_file(core, source) as path:
        contents = await trio.to_thread.run_sync(_contents, core, path)
        loaded = []
        # Once for all images, also when a later one is wrong or the user has had enough: those before it are there.
        with images.index_at_end(core) as noted:
            for each in contents:
                names = [parse_reference(name, core.registry.transports()) for name in each.names]
                image = await images.bring(core, each.reference, names, platform, report, driver, indexed=False)
                noted()
                loaded.append(Loaded(image, tuple(name.familiar for name in names)))
    return tuple(loaded)


def _contents(core: Core, path: Path) -> tuple[Contained, ...]:
    for name, archive in archives(core):
        with held_to_errors(name, "contents"):
            found = archive.contents(path)
        if found is not None:
            return found
    raise Invalid(
        "this is no archive of images",
        hint="`scow load` takes what `scow save` and `docker save` write; a bare file system goes to `scow import`",
    )


@asynccontextmanager
async def _plain_file(core: Core, source: BinaryIO) -> AsyncIterator[Path]:
    """A path at which the archive can be read, uncompressed, from anywhere within it."""
    regular = stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    if regular and sniff(os.pread(source.fileno(), _HEAD, 0)) == "none":
        yield Path(f"/proc/self/fd/{source.fileno()}")
        return
    with disk_errors(core.paths.root):
        fd = os.open(core.paths.root, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        await trio.to_thread.run_sync(_pour, core, source, fd, abandon_on_cancel=False)
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _pour(core: Core, source: BinaryIO, fd: int) -> None:
    with disk_errors(core.paths.root), open(fd, "wb", closefd=False) as target:
        for piece in plain(source):
            trio.from_thread.check_cancelled()
            target.write(piece)
