"""`scow pull`: download an image, or all tags of a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow.engine import Engine

COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    (
        Flag("all-tags", "Download all tags of the repository", short="a"),
        Flag("platform", "Platform of the image (os/architecture[/variant])", "string"),
        Flag("quiet", "Print the name only", short="q"),
        Flag("storage", "Unpack it for this mount plugin", "string"),
    ),
    least=1,
    most=1,
    refused={"--disable-content-trust": "scow checks the digest of everything, always"},
)


async def main(cli: Cli, args: Args) -> int:
    """Prints the progress, the digest, and the full name."""
    from scow_plugins.cli._names import full, is_bare

    (name,) = args.words
    async with cli.engine() as engine:
        transports = engine.transports()
        shown = full(name, transports)
        names = [name]
        if args.on("all-tags"):
            if not is_bare(name, transports):
                raise UsageError("tag can't be used with --all-tags/-a")
            names = [f"{name}:{tag}" for tag in await engine.tags(name)]
            shown = shown.rpartition(":")[0]
        elif not args.on("quiet") and is_bare(name, transports):
            cli.out("Using default tag: latest")
        for each in names:
            await _pull(cli, engine, args, each)
    cli.out(shown)
    return 0


async def _pull(cli: Cli, engine: Engine, args: Args, name: str) -> None:
    from scow.api import Platform
    from scow_plugins.cli._names import familiar, pulling
    from scow_plugins.cli._progress import metered

    platform = Platform.parse(args.text("platform") or "") if args.text("platform") else None
    quiet, transports = args.on("quiet"), engine.transports()
    before = None if quiet else await _digest(engine, name)
    async with metered(cli, cli.stdout, lambda: [pulling(name, transports)], quiet=quiet) as meter:
        image = await engine.pull(
            name, platform=platform, storage=args.text("storage"), progress=meter.update if meter else None
        )
    config = image.config.platform
    if platform is not None and config.architecture and config.rank(platform) is None:
        # An index has what was asked for or is refused; a manifest alone is all that its name has.
        cli.err(f"WARNING: {familiar(name)} is for {config}, not for {platform}: there is no other image of that name")
    if not quiet:
        same = before == str(image.manifest_digest)
        cli.out(f"Digest: {image.manifest_digest}")
        cli.out(f"Status: {'Image is up to date' if same else 'Downloaded newer image'} for {familiar(name)}")


async def _digest(engine: Engine, name: str) -> str | None:
    from scow.api import NotFound

    try:
        return str((await engine.inspect_image(name)).manifest_digest)
    except NotFound:
        return None
