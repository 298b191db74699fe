"""How failures are told: a line that names the thing, a hint, and Docker's exit code; a traceback with --debug only."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

from scow_plugins.cli._cli import Cli, StdoutClosed
from scow_plugins.cli._flags import FlagError, UsageError, WordsError
from scow_plugins.cli._units import printable

#: 128 + SIGPIPE: what a program that writes to a closed pipe ends with.
PIPE_CODE = 141
_INTERRUPTED = 130


def report(cli: Cli, error: BaseException, *, runs: bool) -> int:
    """Tell the user about `error`; gives the exit code. `runs`: with the codes of `run`."""
    leaves = list(_leaves(error))
    if cli.debug:
        cli.err("".join(traceback.format_exception(error)).rstrip())
    for kind, code in ((StdoutClosed, PIPE_CODE), (KeyboardInterrupt, _INTERRUPTED)):
        if any(isinstance(leaf, kind) for leaf in leaves):
            return code
    codes = [_one(cli, leaf, runs) for leaf in _distinct(leaves)]
    return codes[0] if codes else 0


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _distinct(leaves: list[BaseException]) -> list[BaseException]:
    """Each message once, in order."""
    seen: dict[tuple[type[BaseException], str], BaseException] = {}
    for leaf in leaves:
        seen.setdefault((type(leaf), str(leaf)), leaf)
    return list(seen.values())


def _one(cli: Cli, error: BaseException, runs: bool) -> int:
    if isinstance(error, UsageError):
        return usage(cli, error, runs=runs)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    from scow.api import ANSWERS, Internal, ScowError

    if not isinstance(error, ScowError):
        name = type(error).__name__
        error = Internal(f"{name}: {error}" if str(error) else name)
    tell(cli, error.message, error.hint)
    if isinstance(error, Internal):
        cli.err("this is a bug in scow" + ("" if cli.debug else f"; see it with: scow --debug {cli.words} …"))
    answer = ANSWERS[error.kind]
    return answer.run_exit if runs else answer.exit


def tell(cli: Cli, message: str, hint: str | None) -> None:
    """The message and the way out."""
    cli.err(f"scow: {_lines(message)}")
    if hint:
        cli.err(f"hint: {_lines(hint)}")


def _lines(text: str) -> str:
    return "\n".join(printable(line) for line in text.splitlines())


def usage(cli: Cli, error: UsageError, *, runs: bool) -> int:
    """Words that make no command, with docker's exit codes."""
    tell(cli, error.message, error.hint)
    cli.err(f"See '{' '.join(['scow', *cli.words.split()])} --help'.")
    if isinstance(error, FlagError) or (runs and not isinstance(error, WordsError)):
        return 125
    return 1
