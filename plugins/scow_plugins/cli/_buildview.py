"""How a build is shown: live on a terminal, plain lines elsewhere, JSON lines for programs, nothing with --quiet.

`View.take` gets the builder's events; drawing goes on at its own pace.
"""

from __future__ import annotations

import base64
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from scow_plugins.cli._cli import Cli, write_all
from scow_plugins.cli._tty import terminal_size
from scow_plugins.cli._units import printable

if TYPE_CHECKING:
    from scow.engine.builders import BuildEvent

_PERIOD: Final = 0.1
#: Lines of a running step's output on a terminal.
_TAIL: Final = 6
#: Bytes of output that wait while somebody else has the terminal.
_HELD: Final = 4 << 20


@dataclass(slots=True)
class _Running:
    title: str
    began: float
    rest: bytes = b""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=_TAIL))


class View:
    """Shows one build. `style` is plain, tty, rawjson or quiet."""

    def __init__(
        self, descriptor: int, style: str, *, explain: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fd = descriptor
        self._style = style
        self._explain = explain
        self._clock = clock
        self._running: dict[int, _Running] = {}
        self._drawn = 0
        self._held: list[BuildEvent] | None = None
        self._room = _HELD

    def take(self, event: BuildEvent) -> None:
        """Take a piece of news."""
        if self._style == "quiet":
            return
        if self._held is not None:
            self._room -= len(event.data)
            if self._room > 0 or event.kind != "output":
                self._held.append(event)
            return
        if self._style == "rawjson":
            self._json(event)
            return
        if event.kind == "note":
            self._lines([f"[Warning] {event.title}"])
        elif event.kind == "start":
            self._running[event.step] = _Running(printable(event.title), self._clock())
            if self._style == "plain":
                self._lines([f"#{event.step} {printable(event.title)}"])
        elif event.kind == "output":
            self._output(event)
        else:
            self._end(event)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the terminal to somebody else for a while; what happens meanwhile is shown afterwards."""
        self._clear()
        self._held, self._room = [], _HELD
        try:
            yield
        finally:
            held, self._held = self._held, None
            for event in held:
                self.take(event)
            if self._room <= 0:
                self._lines([f"[Warning] {_HELD - self._room:,} bytes came meanwhile, of which the last are not shown"])

    def _output(self, event: BuildEvent) -> None:
        running = self._running[event.step]
        *lines, running.rest = (running.rest + event.data).split(b"\n")
        if len(running.rest) > 1 << 16:
            lines, running.rest = [*lines, running.rest], b""
        self._said(event.step, running, lines)

    def _said(self, step: int, running: _Running, lines: list[bytes]) -> None:
        shown = [printable(_last(line).decode(errors="replace")) for line in lines]
        running.tail.extend(shown)
        if self._style == "plain" and shown:
            seconds = self._clock() - running.began
            self._lines([f"#{step} {seconds:.3f} {line}" for line in shown])

    def _end(self, event: BuildEvent) -> None:
        running = self._running.pop(event.step)
        if running.rest:
            self._said(event.step, running, [running.rest])
        word = {"cached": "CACHED", "done": f"DONE {event.seconds:.1f}s", "failed": "ERROR"}[event.kind]
        if self._style == "plain":
            self._lines([f"#{event.step} {word}", *self._why(event, f"#{event.step} "), ""])
            return
        name = running.title
        self._clear()
        lines = [f" => {'CACHED ' if event.kind == 'cached' else 'ERROR ' if event.kind == 'failed' else ''}{name}"]
        columns = terminal_size(self._fd)[1] or 80
        seconds = f"{event.seconds:.1f}s"
        self._lines([_padded(lines[0], seconds, columns), *self._why(event, "    ")])
        self.draw()

    def _why(self, event: BuildEvent, lead: str) -> list[str]:
        return [f"{lead}not from the cache: {event.why}"] if self._explain and event.why else []

    def draw(self) -> None:
        """The running steps with the end of their output, below what is done."""
        if self._style != "tty" or self._held is not None:
            return
        rows, columns = terminal_size(self._fd)
        columns = columns or 80
        lines = []
        now = self._clock()
        for running in self._running.values():
            lines.append(_padded(f" => {running.title}", f"{now - running.began:.1f}s", columns))
            lines += [f" => => {line}"[: columns - 1] for line in running.tail]
        lines = lines[-max(rows - 1, 1) :] if rows else lines
        self._clear()
        self._lines(lines)
        self._drawn = len(lines)

    def _clear(self) -> None:
        if self._drawn:
            self._write(f"\x1b[{self._drawn}A\r\x1b[J")
            self._drawn = 0

    def finish(self) -> None:
        """Nothing runs any more."""
        self._running.clear()
        self._clear()

    def _json(self, event: BuildEvent) -> None:
        data = {
            "kind": event.kind,
            "step": event.step,
            "title": event.title,
            "stage": event.stage,
            "seconds": round(event.seconds, 3),
            "data": base64.b64encode(event.data).decode(),
            "why": event.why,
        }
        self._lines([json.dumps({key: value for key, value in data.items() if value not in ("", 0.0)})])

    def _lines(self, lines: list[str]) -> None:
        self._write("".join(line + "\n" for line in lines))

    def _write(self, text: str) -> None:
        try:
            write_all(self._fd, text.encode(errors="replace"))
        except OSError:
            pass  # nobody watches any more: no reason to stop


def _last(line: bytes) -> bytes:
    """What a line shows in the end: programs draw over it with carriage returns."""
    return line.rstrip(b"\r").rpartition(b"\r")[2]


def _padded(text: str, end: str, columns: int) -> str:
    room = columns - len(end) - 2
    return f"{text[:room]:<{room}} {end}"


@asynccontextmanager
async def viewing(cli: Cli, style: str, *, explain: bool) -> AsyncIterator[View]:
    """A view that is drawn ten times a second while the block runs. `style`: auto, plain, tty, rawjson, quiet."""
    if style == "auto":
        style = "tty" if cli.is_tty(cli.stderr) and cli.environ.get("TERM") != "dumb" else "plain"
    view = View(cli.stderr, style, explain=explain)
    async with trio.open_nursery() as nursery:
        if style == "tty":
            nursery.start_soon(_ticking, view)
        try:
            yield view
        finally:
            nursery.cancel_scope.cancel()
            view.finish()


async def _ticking(view: View) -> None:
    while True:
        await trio.sleep(_PERIOD)
        view.draw()
