"""`scow push`: upload an image to a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow.engine import Engine

COMMAND = Command(
    "[OPTIONS] NAME[:TAG] [DESTINATION]",
    (
        Flag("all-tags", "Push all tags of the repository that are here", short="a"),
        Flag("quiet", "Print the name only", short="q"),
    ),
    least=1,
    most=2,
    refused={
        "--disable-content-trust": "scow sends what was pulled, digest for digest",
        "--platform": "an index is pushed whole when all its platforms are here, else this platform's image",
    },
    details="DESTINATION: another name, or another place (oci:DIR:TAG, oci-archive:FILE).",
)


async def main(cli: Cli, args: Args) -> int:
    """Prints the progress, the tag, its digest and its size."""
    name, target = args.words[0], args.words[1] if len(args.words) > 1 else None
    async with cli.engine() as engine:
        if not args.on("all-tags"):
            await _push(cli, engine, args, name, target)
            return 0
        for each in await _names(engine, name, target):
            await _push(cli, engine, args, each, None)
    return 0


async def _names(engine: Engine, name: str, target: str | None) -> list[str]:
    from scow.api import NotFound
    from scow_plugins.cli._names import full, is_bare

    transports = engine.transports()
    if target is not None or not is_bare(name, transports):
        raise UsageError("tag can't be used with --all-tags/-a")
    repository = full(name, transports).rpartition(":")[0]
    names = [each for image in await engine.images() for each in image.names]
    found = sorted(each for each in names if full(each, transports).rpartition(":")[0] == repository)
    if not found:
        raise NotFound(f"no image of the repository {name} is here")
    return found


async def _push(cli: Cli, engine: Engine, args: Args, name: str, target: str | None) -> None:
    from scow_plugins.cli._names import full, is_bare
    from scow_plugins.cli._progress import metered

    quiet, transports = args.on("quiet"), engine.transports()
    where = full(target or name, transports)

    def begin() -> list[str]:
        default = ["Using default tag: latest"] if is_bare(target or name, transports) else []
        return [*default, f"The push refers to repository [{where.rpartition(':')[0]}]"]

    async with metered(cli, cli.stdout, begin, quiet=quiet) as meter:
        result = await engine.push(name, target=target, progress=meter.update if meter else None)
    if quiet:
        cli.out(result.name)
        return
    cli.out(f"{where.rpartition(':')[2]}: digest: {result.digest} size: {result.size}")
    if result.converted:
        cli.err("note: Docker's media types became OCI's there, so the digest is another one than here")
    if not result.whole:
        cli.err("note: only this platform's image was pushed, because the others of its index are not here")
