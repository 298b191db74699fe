"""`scow logs`: what a container has written."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    (
        Flag("follow", "Go on as the container writes", short="f"),
        Flag("since", "From this time on (2026-01-02T13:23:37Z), or so long ago (42m)", "string"),
        Flag("tail", "So many lines from the end", "string", "n", default="all"),
        Flag("timestamps", "Show times", short="t"),
        Flag("until", "Up to this time, or so long ago", "string"),
    ),
    least=1,
    most=1,
    refused={"--details": ""},
)


async def main(cli: Cli, args: Args) -> int:
    """Copies the container's standard output and error to ours."""
    from scow_plugins.cli._moments import moment
    from scow_plugins.cli._stdio import Writer, ended

    since, until = moment(cli, args, "since"), moment(cli, args, "until")
    tail = _tail(args.text("tail") or "all")
    async with (
        cli.engine() as engine,
        engine.log_output(
            args.words[0],
            follow=args.on("follow"),
            tail=tail,
            since=since,
            until=until,
            timestamps=args.on("timestamps"),
        ) as outputs,
    ):
        with Writer(cli.stdout) as out, Writer(cli.stderr) as err:
            async with ended(outputs):
                async for output in outputs:
                    await (out if output.stream == "stdout" else err).write(output.data)
    return 0


def _tail(text: str) -> int | None:
    """A number of lines; `all` and negative numbers are all."""
    if text == "all":
        return None
    try:
        number = int(text)
    except ValueError:
        raise UsageError(f'invalid argument "{text}" for "-n, --tail" flag: write a number or all') from None
    return None if number < 0 else number
