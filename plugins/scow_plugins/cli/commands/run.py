"""`scow run`: create, start, and stay connected until it ends; or print the ID with -d."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._createflags import FLAGS, REFUSED
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

if TYPE_CHECKING:
    from scow_plugins.cli._converse import Wiring

COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    (
        *FLAGS,
        Flag("detach", "Run in the background and print the container's ID", short="d"),
        Flag("detach-keys", "Keys that leave the container running", "string", default="ctrl-p,ctrl-q"),
        Flag("sig-proxy", "Pass signals on to the process", default=True),
    ),
    least=1,
    most=None,
    interspersed=False,
    refused=REFUSED,
    runs=True,
)
_STREAMS = ("stdin", "stdout", "stderr")


async def main(cli: Cli, args: Args) -> int:
    """Gives the exit code of the process, 0 when detached."""
    from scow_plugins.cli._converse import check_input, converse, user_size
    from scow_plugins.cli._creating import create
    from scow_plugins.cli._request import create_request

    detached = args.on("detach")
    wiring = _wiring(args)
    if not detached:
        check_input(cli, tty=wiring.tty, stdin=wiring.stdin)
    size = user_size(cli) if wiring.tty else (0, 0)
    request = create_request(args, cli.environ, detached=detached, size=size)
    async with cli.engine() as engine:
        container = await create(cli, engine, request, args)
        if detached:
            await engine.start(container.spec.id)
            cli.out(container.spec.id)
            return 0
        async with engine.attach(container.spec.id, start=True, stdin=wiring.stdin) as session:
            return await converse(cli, session, wiring)


def _wiring(args: Args) -> Wiring:
    from scow_plugins.cli._converse import Wiring, detach_keys

    wanted = [stream.lower() for stream in args.all("attach")]
    for stream in wanted:
        if stream not in _STREAMS:
            raise UsageError(f'invalid argument "{stream}" for "-a, --attach" flag: write stdin, stdout or stderr')
    if wanted and args.on("detach"):
        raise UsageError("--attach and --detach exclude each other")
    return Wiring(
        tty=args.on("tty"),
        stdin=args.on("interactive") and (not wanted or "stdin" in wanted),
        stdout=not wanted or "stdout" in wanted,
        stderr=not wanted or "stderr" in wanted,
        sig_proxy=args.on("sig-proxy"),
        detach_keys=detach_keys(args),
    )
