"""How a build is shown: live on a terminal, plain lines elsewhere, JSON lines for programs, nothing with --quiet.

`View.take` gets the builder's events; drawing goes on at its own pace.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from scow_plugins.cli._buildjson import ENDED, Statuses, warning
from scow_plugins.cli._cli import Cli, write_all
from scow_plugins.cli._liveview import TAIL, Running, layout, padded, rows_of
from scow_plugins.cli._tty import terminal_size
from scow_plugins.cli._units import human_size, printable

if TYPE_CHECKING:
    from scow.engine.builders import BuildEvent, Finding

_PERIOD: Final = 0.1
#: Bytes of output that wait while somebody else has the terminal.
_HELD: Final = 4 << 20
#: Colours and the like, which programs write to what they take for a terminal (ECMA-48, 5.4; OSC as xterm has it).
_SEQUENCE: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")


class View:
    """Shows one build. `style` is plain, tty, rawjson or quiet."""

    def __init__(
        self,
        descriptor: int,
        style: str,
        *,
        explain: bool = False,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._fd = descriptor
        self._style = style
        self._explain = explain
        self._clock = clock
        self._now = now
        self._statuses = Statuses(explain=explain)
        self._began = clock()
        self._total = 0
        self._ended = 0
        self._running: dict[int, Running] = {}
        self._drawn: list[str] = []
        self._held: list[BuildEvent] | None = None
        self._room = _HELD
        #: What a check of the file complains about.
        self.findings: tuple[Finding, ...] = ()

    def take(self, event: BuildEvent) -> None:
        """Take a piece of news."""
        if event.kind == "warned":
            self.findings = event.findings
            return
        if self._style == "quiet":
            return
        if self._held is not None:
            self._room -= len(event.data)
            if self._room > 0 or event.kind != "output":
                self._held.append(event)
        elif self._style == "rawjson":
            self._json(self._statuses.lines(event, self._now()))
        else:
            self._show(event)

    def _show(self, event: BuildEvent) -> None:
        if event.kind == "plan":
            self._total += event.total
        elif event.kind == "note":
            self._above([f"[Warning] {printable(event.title)}"])
        elif event.kind == "start":
            # Work beside the plan's steps is counted as it comes.
            self._total += not event.stage
            self._running[event.step] = Running(printable(event.title), self._clock())
            if self._style == "plain":
                self._lines([f"#{event.step} {printable(event.title)}"])
        elif event.kind == "output":
            self._output(event)
        elif event.kind == "status":
            self._layer(event)
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

    def warned(self, findings: Sequence[Finding], file: str) -> None:
        """What a check of the file complains about: for programs; people are told how many there are."""
        if self._style == "rawjson":
            self._json(warning(each, file) for each in findings)

    def _output(self, event: BuildEvent) -> None:
        running = self._running[event.step]
        *lines, running.rest = (running.rest + event.data).split(b"\n")
        if len(running.rest) > 1 << 16:
            lines, running.rest = [*lines, running.rest], b""
        self._said(event.step, running, lines)

    def _layer(self, event: BuildEvent) -> None:
        running = self._running[event.step]
        amount = f"{human_size(event.current)}/{human_size(event.total)}" if event.current < event.total else ""
        line = f"{event.title.partition(':')[2][:12]} {event.why} {amount or human_size(event.total)}"
        running.layers.pop(event.title, None)
        if event.why in ENDED:
            if self._style == "plain":
                self._lines([f"#{event.step} {self._clock() - running.began:.3f} {line}"])
        else:
            running.layers[event.title] = line
        running.tail = list(running.layers.values())[-TAIL:]

    def _said(self, step: int, running: Running, lines: list[bytes]) -> None:
        shown = [_readable(line) for line in lines]
        running.said(shown)
        if self._style == "plain" and shown:
            seconds = self._clock() - running.began
            self._lines([f"#{step} {seconds:.3f} {line}" for line in shown])

    def _end(self, event: BuildEvent) -> None:
        running = self._running.pop(event.step)
        self._ended += 1
        if running.rest:
            self._said(event.step, running, [running.rest])
        if self._style == "plain":
            word = {"cached": "CACHED", "done": f"DONE {event.seconds:.1f}s"}.get(event.kind, "ERROR")
            self._lines([f"#{event.step} {word}", *self._why(event, f"#{event.step} "), ""])
            return
        word = {"cached": "CACHED ", "failed": "ERROR "}.get(event.kind, "")
        columns = terminal_size(self._fd)[1] or 80
        line = padded(f" => {word}{running.title}", f"{event.seconds:.1f}s", columns)
        self._above([line, *self._why(event, "    ")])

    def _why(self, event: BuildEvent, lead: str) -> list[str]:
        if not self._explain or not event.why or event.kind == "failed":
            return []
        return [f"{lead}not from the cache: {event.why}"]

    def draw(self) -> None:
        """The running steps with the end of their output, below what is done."""
        if self._style == "tty" and self._held is None:
            self._above([])

    def _above(self, lines: list[str]) -> None:
        """Lines that stay; on a terminal above those that run, which are drawn anew, all in one go."""
        if self._style != "tty":
            self._lines(lines)
            return
        rows, columns = terminal_size(self._fd)
        live = layout(self._head(), tuple(self._running.values()), self._clock(), rows, columns)
        self._write(self._erasing(columns) + "".join(line + "\n" for line in (*lines, *live)))
        self._drawn = live

    def _head(self) -> str:
        return f"[+] Building {self._clock() - self._began:.1f}s ({self._ended}/{max(self._total, self._ended)})"

    def _erasing(self, columns: int) -> str:
        return f"\x1b[{rows_of(self._drawn, columns)}A\r\x1b[J" if self._drawn else ""

    def _clear(self) -> None:
        if self._drawn:
            self._write(self._erasing(terminal_size(self._fd)[1]))
            self._drawn = []

    def finish(self, how: str = "FINISHED") -> None:
        """Nothing runs any more."""
        self._running.clear()
        self._clear()
        if self._style == "tty" and self._total:
            self._lines([f"{self._head()} {how}"])

    def _json(self, statuses: Iterator[dict[str, Any]]) -> None:
        self._lines([json.dumps(status, ensure_ascii=False) for status in statuses])

    def _lines(self, lines: list[str]) -> None:
        self._write("".join(line + "\n" for line in lines))

    def _write(self, text: str) -> None:
        try:
            write_all(self._fd, text.encode(errors="replace"))
        except OSError:
            pass  # nobody watches any more: no reason to stop


def _readable(line: bytes) -> str:
    """What a line shows in the end: programs draw over it with carriage returns, and colour it."""
    text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="replace")
    return printable(_SEQUENCE.sub("", text).expandtabs())


@asynccontextmanager
async def viewing(cli: Cli, style: str, *, explain: bool) -> AsyncIterator[View]:
    """A view that is drawn ten times a second while the block runs. `style`: auto, plain, tty, rawjson, quiet."""
    if style == "auto":
        style = "tty" if cli.is_tty(cli.stderr) and cli.environ.get("TERM") != "dumb" else "plain"
    view = View(cli.stderr, style, explain=explain)
    how = "ERROR"
    async with trio.open_nursery() as nursery:
        if style == "tty":
            nursery.start_soon(_ticking, view)
        try:
            yield view
            how = "FINISHED"
        except BaseException as error:
            if _interrupted(error):
                how = "CANCELED"
            raise
        finally:
            nursery.cancel_scope.cancel()
            view.finish(how)


def _interrupted(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(KeyboardInterrupt) is not None
    return isinstance(error, KeyboardInterrupt | trio.Cancelled)


async def _ticking(view: View) -> None:
    while True:
        await trio.sleep(_PERIOD)
        view.draw()
