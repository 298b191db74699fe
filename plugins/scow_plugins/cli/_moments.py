"""--since and --until as seconds since the epoch."""

from __future__ import annotations

from scow_plugins.cli._cli import Cli
from scow_plugins.cli._flags import Args, UsageError
from scow_plugins.cli._units import read_moment


def moment(cli: Cli, args: Args, name: str) -> float | None:
    """The flag's moment; None when it isn't given. Raises UsageError."""
    text = args.text(name)
    if not text:
        return None
    try:
        return read_moment(text, cli.clock())
    except (ValueError, OverflowError) as error:
        raise UsageError(f'invalid argument "{text}" for "--{name}" flag: {error}') from None
