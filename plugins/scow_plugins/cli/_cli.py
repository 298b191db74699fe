"""The user's side of a command: descriptors, environment, global options, and the engine they lead to.

Commands get a `Cli` instead of touching sys.stdout or os.environ, so that a test can give them pipes and a fake engine.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from scow_plugins.cli._flags import Args

if TYPE_CHECKING:
    from scow.engine import Engine

Opener = Callable[..., AbstractAsyncContextManager[Any]]


class StdoutClosed(Exception):
    """Nobody reads our standard output any more."""


class Cli:
    """What a command runs in. `opener` is `scow.engine.open_engine`, or a test's own."""

    def __init__(
        self,
        *,
        stdin: int = 0,
        stdout: int = 1,
        stderr: int = 2,
        environ: Mapping[str, str] | None = None,
        opener: Opener | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.environ = os.environ if environ is None else environ
        self.clock = clock
        self.settings: dict[str, Any] = {}
        #: How the command was called (`container run`).
        self.words = ""
        self.debug = False
        self._opener = opener

    def engine(self) -> AbstractAsyncContextManager[Engine]:
        """The engine that the global options mean, opened."""
        if self._opener is None:
            from functools import partial

            from scow.engine import open_engine

            self._opener = partial(open_engine, leaving=True)
        return self._opener(**self.settings)

    def configure(self, args: Args) -> None:
        """Take the global options; SCOW_ROOT and SCOW_RUN count where there is no flag."""
        from pathlib import Path

        self.debug = args.on("debug")
        for name, variable in (("root", "SCOW_ROOT"), ("run", "SCOW_RUN"), ("config", ""), ("trace", "")):
            text = args.text(name) or self.environ.get(variable, "")
            self.settings[name] = Path(os.path.abspath(text)) if text else None
        self.settings["log_level"] = args.text("log-level")
        self.settings["log_format"] = args.text("log-format")

    def configure_more(self, args: Args) -> None:
        """Take those global options that were written behind the command's name: they count."""
        from pathlib import Path

        if "trace" in args.given:
            self.settings["trace"] = Path(os.path.abspath(args.text("trace") or ""))
        for name in ("log-level", "log-format"):
            if name in args.given:
                self.settings[name.replace("-", "_")] = args.text(name)

    def out(self, text: str) -> None:
        """Write text and a newline to standard output, harmless on a terminal. Raises StdoutClosed."""
        text = visible(text) if self.is_tty(self.stdout) else text
        self.out_bytes(text.encode(errors="surrogateescape") + b"\n")

    def out_bytes(self, data: bytes) -> None:
        """Write bytes to standard output, all of them. Raises StdoutClosed."""
        try:
            write_all(self.stdout, data)
        except (BrokenPipeError, ConnectionResetError):
            raise StdoutClosed from None

    def err(self, text: str) -> None:
        """Write text and a newline to standard error. That it can't be written is nobody's trouble."""
        text = visible(text) if self.is_tty(self.stderr) else text
        try:
            write_all(self.stderr, text.encode(errors="surrogateescape") + b"\n")
        except OSError:
            pass

    def is_tty(self, descriptor: int) -> bool:
        """Whether it is a terminal; a closed descriptor is none."""
        try:
            return os.isatty(descriptor)
        except OSError:
            return False


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, although the descriptor may be non-blocking by somebody else's doing."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()


#: Overrides of the direction of writing, which make a line read otherwise than it is (Unicode TR36).
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    """Text for a terminal, where much comes from strangers: control characters but newline and tab are escaped."""
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    code = ord(char)
    if code < 0x20 or 0x7F <= code < 0xA0:
        return char if char in "\n\t" else f"\\x{code:02x}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"  # a byte that is no text (surrogateescape)
    return f"\\u{code:04x}" if char in _DIRECTIONS else char
