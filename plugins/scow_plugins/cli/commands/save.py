"""`scow save`: images into an archive, to a file or to standard output."""

from __future__ import annotations

import os
import threading

from scow_plugins.cli._cli import Cli, StdoutClosed
from scow_plugins.cli._flags import Args, Command, Flag, UsageError

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    (
        Flag("format", "docker-archive or oci-archive", "string", default="docker-archive"),
        Flag("output", "Write to a file instead of standard output", "string", "o"),
    ),
    least=1,
    most=None,
    refused={"--platform": "pull the platform that you want"},
)
_PIECE = 1 << 20


async def main(cli: Cli, args: Args) -> int:
    """Prints nothing beside the archive."""
    kind = args.text("format") or ""
    if kind not in ("docker-archive", "oci-archive"):
        raise UsageError(f"unknown format {kind!r}", hint="there are docker-archive and oci-archive")
    path = args.text("output")
    if not path and cli.is_tty(cli.stdout):
        raise UsageError("cowardly refusing to save to a terminal", hint="use -o FILE, or redirect the output")
    if path and ":" in path:
        raise UsageError(f"{path} can't be written: its path has a colon", hint="redirect standard output to it")
    async with cli.engine() as engine:
        if path:
            await engine.save(args.words, path, format=kind)
            return 0
        with _Through(cli) as inlet:
            await engine.save(args.words, inlet, format=kind)
    return 0


class _Through:
    """A path whose bytes come out at standard output: whatever that is, it can't be opened anew and cut to nothing."""

    def __init__(self, cli: Cli) -> None:
        self._cli = cli
        self._out, self._in = os.pipe()
        self._closed = False
        self._thread = threading.Thread(target=self._pump, daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"/proc/self/fd/{self._in}"

    def __exit__(self, *failure: object) -> None:
        os.close(self._in)
        self._thread.join()
        if self._closed:
            raise StdoutClosed

    def _pump(self) -> None:
        try:
            while data := os.read(self._out, _PIECE):
                self._cli.out_bytes(data)
        except StdoutClosed:
            self._closed = True
        finally:
            os.close(self._out)
