"""`scow login`: check a name and a password with a registry, and keep them."""

from __future__ import annotations

import os

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] [SERVER]",
    (
        Flag("password", "Password (others see it in the list of processes)", "string", "p"),
        Flag("password-stdin", "Take the password from standard input"),
        Flag("username", "Name", "string", "u"),
    ),
    most=1,
    details="SERVER is Docker Hub by default. The login is kept in ~/.docker/config.json or by a credential helper.",
)
_PASSWORD_MAX = 64 * 1024


def check(cli: Cli, args: Args) -> None:
    """Refuses what docker refuses, before anybody is asked."""
    if args.on("password-stdin"):
        if args.text("password") is not None:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not args.text("username"):
            raise UsageError("must provide --username with --password-stdin")
    elif args.text("password") is not None:
        cli.err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")


async def main(cli: Cli, args: Args) -> int:
    """Prints `Login Succeeded`."""
    server = args.words[0] if args.words else ""
    username = args.text("username") or ""
    password = args.text("password")
    if args.on("password-stdin"):
        password = _read_all(cli)
    elif not username or password is None:
        if not cli.is_tty(cli.stdin):
            raise UsageError(
                "cannot perform an interactive login from a non TTY device", hint="use -u NAME --password-stdin"
            )
        username = username or _ask(cli, "Username: ")
        password = password if password is not None else _ask(cli, "Password: ", hidden=True)
    if not username or not password:
        raise UsageError("username and password can't be empty")
    async with cli.engine() as engine:
        where = await engine.login(server, username, password)
    if not where.startswith("docker-credential-"):
        cli.err(f"WARNING! Your password will be stored unencrypted in {where}.")
        cli.err("Configure a credential helper to remove this warning: credsStore in that file")
    cli.out("Login Succeeded")
    return 0


def _read_all(cli: Cli) -> str:
    data = b""
    while len(data) <= _PASSWORD_MAX and (more := os.read(cli.stdin, 4096)):
        data += more
    return data.decode(errors="surrogateescape").removesuffix("\n").removesuffix("\r")


def _ask(cli: Cli, prompt: str, *, hidden: bool = False) -> str:
    """A line from the terminal, without its echo when it is a secret."""
    import termios

    cli.out_bytes(prompt.encode())
    before = termios.tcgetattr(cli.stdin)
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    line = b""
    try:
        if hidden:
            termios.tcsetattr(cli.stdin, termios.TCSAFLUSH, quiet)
        while not line.endswith(b"\n") and len(line) < _PASSWORD_MAX and (more := os.read(cli.stdin, 1024)):
            line += more
    finally:
        if hidden:
            termios.tcsetattr(cli.stdin, termios.TCSAFLUSH, before)
            cli.out("")
    return line.decode(errors="surrogateescape").rstrip("\r\n")
