"""Standard output as a path, for what writes files."""

from __future__ import annotations

import os
import threading

from scow_plugins.cli._cli import Cli, StdoutClosed

_PIECE = 1 << 20


class Through:
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
