"""`scow build --on-error shell` and `--break LINE`: the user's side of a shell in the middle of a build.

On a terminal the shell is interactive; from anything else its commands are read. It writes to standard error, as all
that is said while a build goes on: standard output belongs to the result.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from scow_plugins.cli._buildview import View
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, UsageError
from scow_plugins.cli._units import printable

if TYPE_CHECKING:
    from scow.engine import Session
    from scow.engine.builders import Shells


def shells_wanted(cli: Cli, args: Args, style: str) -> bool:
    """Whether the flags ask for any. Raises UsageError for what can't be."""
    on_error = args.text("on-error")
    if on_error not in (None, "shell"):
        raise UsageError(f'invalid argument "{on_error}" for "--on-error" flag: write shell')
    lines(args)
    flag = "--on-error shell" if on_error else "--break" if args.all("break") else ""
    if not flag:
        return False
    if "-" in (*args.words, args.text("file")):
        raise UsageError(
            f"{flag} needs standard input, which gives the build its files", hint="write them to a directory"
        )
    if style == "rawjson":
        raise UsageError(f"{flag} and --progress rawjson exclude each other: both write to standard error")
    if cli.is_tty(cli.stdin) and not cli.is_tty(cli.stderr):
        raise UsageError(
            f"{flag} needs standard error on the terminal, too", hint="or give commands: < FILE, </dev/null"
        )
    return True


def lines(args: Args) -> tuple[int, ...]:
    """--break. Raises UsageError."""
    for text in args.all("break"):
        if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text)):
            raise UsageError(f'invalid argument "{text}" for "--break" flag: write the number of a line')
    return tuple(int(text) for text in args.all("break"))


def shells(cli: Cli, args: Args, view: View) -> Shells:
    """What the builder is given."""
    from scow.engine.builders import Shells

    tty = cli.is_tty(cli.stdin)

    async def converse(session: Session, text: str) -> int:
        return await _converse(cli, session, text, view, tty=tty)

    return Shells(converse, tty, args.text("on-error") == "shell", lines(args))


async def _converse(cli: Cli, session: Session, text: str, view: View, *, tty: bool) -> int:
    from scow_plugins.cli._converse import Wiring, converse

    left: list[int] = []
    user = Cli(stdin=cli.stdin, stdout=cli.stderr, stderr=cli.stderr, environ=cli.environ)
    wiring = Wiring(tty=tty, stdin=True, sig_proxy=False, detach_keys=b"")
    with view.aside():
        cli.err("\n".join(printable(line) for line in text.splitlines()))
        code = await converse(user, session, wiring, left.append)
    if left:
        # As without a shell: an interrupted build says so.
        signal.raise_signal(left[0])
    return code
