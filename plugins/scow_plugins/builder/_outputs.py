"""What becomes of a result: kept here, pushed, written as an archive, a layout, or plain files; several at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scow.api import Digest, Invalid
from scow.engine.builders import BuildOutput, BuildRequest
from scow.engine.building import Composed, ImageInfo, Stack, Workbench, compose

_HERE = (BuildOutput("image"),)


def check_outputs(bench: Workbench, request: BuildRequest) -> None:
    """What can't be written is said before anything runs. Raises Invalid."""
    for name in request.names:
        bench.check_name(name)
    for output in request.outputs:
        for name in output.names:
            bench.check_name(name)
        if output.push and not (request.names or output.names):
            raise Invalid("a push needs a name", hint="give one: -t name, or name= in --output")
        if output.kind in ("oci", "docker") and ":" in output.dest:
            raise Invalid(f"{output.dest} can't be written: its path has a colon", hint="write it somewhere else")


async def put_out(
    bench: Workbench, request: BuildRequest, stack: Stack, config: Mapping[str, Any]
) -> tuple[ImageInfo | None, Composed, tuple[tuple[str, Digest], ...]]:
    """Do it; gives the image that is kept (None: it isn't), what it is made of, and what was pushed.

    Raises Invalid, NotFound, Denied, Unavailable, Exhausted.
    """
    kept: ImageInfo | None = None
    pushed: list[tuple[str, Digest]] = []
    composed = compose(stack, config, request.annotations)
    for output in request.outputs or _HERE:
        names = [bench.check_name(name) for name in dict.fromkeys((*request.names, *output.names))]
        annotations = {**request.annotations, **output.annotations}
        if output.keeps:
            composed = compose(stack, config, annotations)
            kept = await bench.save(stack, dict(config), names, annotations=annotations)
            if output.push:
                pushed += [(name, await bench.push(name)) for name in names]
        elif output.kind in ("oci", "docker"):
            sent = compose(stack, config, annotations)
            composed = composed if kept else sent
            await bench.send(sent, _place(output), names)
        elif output.kind == "local":
            await bench.lay_out(stack, Path(output.dest))
        elif output.kind == "tar":
            await bench.pack(stack, Path(output.dest))
    return kept, composed, tuple(pushed)


def _place(output: BuildOutput) -> str:
    if output.kind == "docker":
        return f"docker-archive:{output.dest}"
    return f"oci:{output.dest}" if output.directory else f"oci-archive:{output.dest}"
