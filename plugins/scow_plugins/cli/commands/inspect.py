"""`scow inspect`: containers and images as JSON in docker's shape, or through a template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow.engine import Engine

COMMAND = Command(
    "[OPTIONS] NAME|ID [NAME|ID...]",
    (
        Flag("format", "json, or a Go template", "string", "f"),
        Flag("type", "container or image", "string"),
    ),
    least=1,
    most=None,
    refused={"--size": "", "-s": ""},
)
_KINDS = ("container", "image")


async def main(cli: Cli, args: Args) -> int:
    """Prints one JSON list, or a line for each; 1 when one of them doesn't exist."""
    from scow.api import NotFound, ScowError
    from scow_plugins.cli._report import report

    kind = args.text("type") or (cli.words.partition(" ")[0] if " " in cli.words else "")
    if kind and kind not in _KINDS:
        raise UsageError(f"{kind!r} is not a type of object", hint="container or image")
    found: list[Any] = []
    errors: list[ScowError] = []
    async with cli.engine() as engine:
        for name in args.words:
            try:
                found.append(await _look(engine, name, kind))
            except NotFound as error:
                errors.append(error if kind else NotFound(f"no such object: {name}", hint="scow ps -a; scow images"))
            except ScowError as error:
                errors.append(error)
    _print(cli, args.text("format"), found)
    for each in errors:
        report(cli, each, runs=False)
    return 1 if errors else 0


async def _look(engine: Engine, name: str, kind: str) -> dict[str, Any]:
    from scow.api import Invalid, NotFound
    from scow_plugins.cli._inspect import container_json, image_json

    if kind != "image":
        try:
            return container_json(await engine.inspect(name))
        except (NotFound, Invalid):  # what is no name of a container may be one of an image
            if kind:
                raise
    return image_json(await engine.inspect_image(name))


def _print(cli: Cli, form: str | None, found: list[Any]) -> None:
    from scow_plugins.cli._format import indented, render
    from scow_plugins.cli._functions import to_json

    if not form:
        cli.out(indented(found))
    elif form == "json":
        cli.out(to_json(found))
    else:
        for each in found:
            cli.out(render(form, each))
