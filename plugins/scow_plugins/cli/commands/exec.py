"""`scow exec`: another process in a running container."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag

COMMAND = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    (
        Flag("detach", "Run in the background", short="d"),
        Flag("detach-keys", "Keys that leave the process running", "string", default="ctrl-p,ctrl-q"),
        Flag("env", "Set an environment variable; without = it is taken from the environment", "list", "e"),
        Flag("env-file", "Set environment variables from a file", "list"),
        Flag("interactive", "Connect standard input", short="i"),
        Flag("privileged", "Give all capabilities"),
        Flag("tty", "Give it a terminal", short="t"),
        Flag("user", "User that runs the command (name|uid[:group|gid])", "string", "u"),
        Flag("workdir", "Working directory in the container", "string", "w"),
    ),
    least=2,
    most=None,
    interspersed=False,
    runs=True,
)


async def main(cli: Cli, args: Args) -> int:
    """Gives the exit code of the process, 0 when it runs in the background."""
    from scow.api import ProcessSpec
    from scow_plugins.cli._converse import Wiring, check_input, converse, detach_keys, user_size
    from scow_plugins.cli._request import environment

    name, *command = args.words
    detach, tty = args.on("detach"), args.on("tty")
    stdin = args.on("interactive") and not detach
    keys = detach_keys(args)
    check_input(cli, tty=tty, stdin=stdin)
    rows, columns = user_size(cli) if tty else (0, 0)
    process = ProcessSpec(
        args=tuple(command),
        env=environment(args, cli.environ),  # an entry without `=` removes the container's variable
        cwd=args.text("workdir") or "",  # empty, as an empty user: the container's own
        user=args.text("user") or "",
        tty=tty,
        privileged=args.on("privileged"),
        rows=rows,
        columns=columns,
    )
    async with cli.engine() as engine, engine.exec(name, process, stdin=stdin, detach=detach) as session:
        if detach:
            return 0
        # Docker passes no signals on to what exec runs: Ctrl-C ends the client.
        return await converse(cli, session, Wiring(tty=tty, stdin=stdin, sig_proxy=False, detach_keys=keys))
