"""`scow attach`: connect to a running container."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    (
        Flag("detach-keys", "Keys that leave the container running", "string", default="ctrl-p,ctrl-q"),
        Flag("no-stdin", "Don't connect standard input"),
        Flag("sig-proxy", "Pass signals on to the process", default=True),
    ),
    least=1,
    most=1,
)


async def main(cli: Cli, args: Args) -> int:
    """Gives the exit code of the process, 0 when detached."""
    from scow_plugins.cli._converse import Wiring, check_input, converse, detach_keys, user_size

    keys = detach_keys(args)
    async with cli.engine() as engine:
        spec = (await engine.inspect(args.words[0])).spec
        stdin = spec.stdin_open and not args.on("no-stdin")
        check_input(cli, tty=spec.process.tty, stdin=stdin)
        wiring = Wiring(
            tty=spec.process.tty,
            stdin=stdin,
            sig_proxy=args.on("sig-proxy"),
            eof=spec.stdin_once,
            detach_keys=keys,
        )
        rows, columns = user_size(cli) if wiring.tty else (0, 0)
        async with engine.attach(spec.id, stdin=stdin, rows=rows, columns=columns) as session:
            return await converse(cli, session, wiring)
