"""`scow start`: start containers again; with -a or -i stay connected to one."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        Flag("attach", "Show its output, pass signals on, and end with its exit code", short="a"),
        Flag("detach-keys", "Keys that leave the container running", "string", default="ctrl-p,ctrl-q"),
        Flag("interactive", "Connect standard input", short="i"),
        Flag("sig-proxy", "Pass signals on to the process", default=True),
    ),
    least=1,
    most=None,
    refused={"--checkpoint": "", "--checkpoint-dir": ""},
)


async def main(cli: Cli, args: Args) -> int:
    """Prints each name; gives the exit code of the process when connected."""
    if args.on("attach") or args.on("interactive"):
        if len(args.words) != 1:
            raise UsageError("-a and -i take one container only")
        return await _connected(cli, args)
    from scow_plugins.cli._several import each

    async with cli.engine() as engine:

        async def one(name: str) -> str:
            await engine.start(name)
            return name

        return await each(cli, args.words, one)


async def _connected(cli: Cli, args: Args) -> int:
    from scow_plugins.cli._converse import Wiring, check_input, converse, detach_keys, user_size

    keys = detach_keys(args)
    (name,) = args.words
    async with cli.engine() as engine:
        spec = (await engine.inspect(name)).spec
        stdin = args.on("interactive") and spec.stdin_open
        check_input(cli, tty=spec.process.tty, stdin=stdin)
        wiring = Wiring(
            tty=spec.process.tty,
            stdin=stdin,
            sig_proxy=args.on("sig-proxy"),
            eof=spec.stdin_once,
            detach_keys=keys,
        )
        rows, columns = user_size(cli) if wiring.tty else (0, 0)
        async with engine.attach(spec.id, start=True, stdin=stdin, rows=rows, columns=columns) as session:
            return await converse(cli, session, wiring)
