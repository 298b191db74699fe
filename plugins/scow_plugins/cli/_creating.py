"""Creating a container from flags, with its pull shown on standard error: what `run` and `create` share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from scow.api import Container, Exists, Invalid, Named, parse_reference
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args
from scow_plugins.cli._names import familiar, pulling
from scow_plugins.cli._progress import metered
from scow_plugins.cli._units import printable

if TYPE_CHECKING:
    from scow.engine import CreateRequest, Engine


async def create(cli: Cli, engine: Engine, request: CreateRequest, args: Args) -> Container:
    """The new container, its ID written to --cidfile."""

    # A place of this machine is looked at anew each time: there is no image of that name here, and none is downloaded.
    is_name = isinstance(parse_reference(request.image, engine.transports()), Named)

    def begin() -> list[str]:
        missing = [f"Unable to find image '{familiar(request.image)}' locally"]
        return [
            *(missing if is_name and request.pull == "missing" else []),
            pulling(request.image, engine.transports()),
        ]

    warnings: list[str] = []
    with _id_file(args.text("cidfile")) as write:
        async with metered(cli, cli.stderr, begin, quiet=args.on("quiet"), late=not is_name) as meter:
            container = await engine.create(request, progress=meter.update if meter else None, warn=warnings.append)
        write.append(container.spec.id)
    if meter is not None and meter.begun and is_name:
        cli.err(f"Digest: {container.spec.manifest}")
        fresh = meter.fetched or request.pull == "missing"
        cli.err(f"Status: {'Downloaded newer image' if fresh else 'Image is up to date'} for {familiar(request.image)}")
    for warning in warnings:
        cli.err(f"WARNING: {printable(warning)}")
    return container


@contextmanager
def _id_file(path: str | None) -> Iterator[list[str]]:
    """A file made before there is a container, so that it can't fail afterwards; gone again if there will be none."""
    written: list[str] = []
    if not path:
        yield written
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise Exists(f"container ID file {path} exists", hint="remove it if its container is gone") from None
    except OSError as error:
        raise Invalid(f"container ID file {path}: {error.strerror}") from None
    try:
        yield written
        os.write(descriptor, "".join(written).encode())
    finally:
        os.close(descriptor)
        if not written:
            os.unlink(path)
