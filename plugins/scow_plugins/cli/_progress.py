"""How a pull is shown: a bar per layer on a terminal, lines elsewhere, nothing with --quiet.

`Meter` takes the engine's progress, keeps what it says, and draws at its own pace; drawing is text in, text out.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from scow_plugins.cli._cli import Cli, write_all
from scow_plugins.cli._tty import terminal_size
from scow_plugins.cli._units import human_size

if TYPE_CHECKING:
    from scow.engine import Progress

_PERIOD: Final = 0.1
#: Docker's words for the phases.
_WORDS: Final = {
    "waiting": "Waiting",
    "downloading": "Downloading",
    "downloaded": "Download complete",
    "unpacking": "Extracting",
    "complete": "Pull complete",
    "exists": "Already exists",
    "preparing": "Preparing",
    "pushing": "Pushing",
    "pushed": "Pushed",
    "mounted": "Mounted from another repository",
    "present": "Layer already exists",
}
_LINES: Final = {**_WORDS, "waiting": "Pulling fs layer"}
#: Where nothing is pulled: what `scow load` reads lies here.
_LOADING: Final = {
    "waiting": "Loading layer",
    "downloading": "Loading layer",
    "downloaded": "Loaded",
    "complete": "Load complete",
}
#: What tells of nothing that is done.
_IDLE: Final = frozenset({"waiting", "exists"})
_ENDED: Final = frozenset({"complete", "exists", "pushed", "mounted", "present"})
_MOVING: Final = frozenset({"downloading", "unpacking", "pushing"})


class Layer:
    """What is known of one layer, and how fast it comes."""

    def __init__(self, name: str, now: float, words: Mapping[str, str] = _WORDS) -> None:
        self.name = name
        self._words = words
        self.phase = "waiting"
        self.current = 0
        self.total = 0
        self.speed = 0.0
        self._since, self._from = now, 0

    def update(self, phase: str, current: int, total: int, now: float) -> bool:
        """Take news; true when the phase has changed."""
        changed = phase != self.phase
        if changed:
            self.phase, self.speed, self._since, self._from = phase, 0.0, now, current
        self.current, self.total = current, total or self.total
        passed = now - self._since
        if passed >= 0.5:
            self.speed = (current - self._from) / passed
            if passed >= 4:
                # A window of a few seconds: the speed is what it is now, not what it was on average.
                self._since, self._from = now - 2, round(current - self.speed * 2)
        return changed

    def line(self, width: int) -> str:
        """`a1b2c3d4e5f6: Downloading [====>   ]  1.2MB/3.4MB  5MB/s`, at most `width` characters."""
        text = f"{self.name}: {self._words.get(self.phase, self.phase)}"
        if self.phase not in _MOVING or not self.total:
            return text[:width]
        amount = f"  {human_size(self.current)}/{human_size(self.total)}"
        speed = f"  {human_size(max(self.speed, 0), 3)}/s" if self.speed > 0 else ""
        room = width - len(text) - len(amount) - len(speed) - 3
        if room < 5:
            return (text + amount)[:width]
        return f"{text} [{bar(self.current / self.total, min(room, 50))}]{amount}{speed}"


def bar(part: float, width: int) -> str:
    """`=====>    `, exactly `width` characters."""
    filled = max(0, min(width, int(part * width)))
    return "=" * width if filled == width else ("=" * filled + ">").ljust(width)


class Meter:
    """The progress of a pull or a push. `update` is called by the engine; `draw` by the clock.

    `loading` has the words for what comes from here; `late` says nothing at all until there is something to do.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        terminal: bool,
        begin: Callable[[], list[str]],
        clock: Callable[[], float] = time.monotonic,
        loading: bool = False,
        late: bool = False,
    ) -> None:
        self.begun = False
        #: Whether a layer came that wasn't here.
        self.fetched = False
        self._words = {**_WORDS, **_LOADING} if loading else _WORDS
        self._lines = self._words if loading else _LINES
        self._late = late
        self._fd = descriptor
        self._terminal = terminal
        self._begin = begin
        self._clock = clock
        self._layers: dict[str, Layer] = {}
        self._drawn = 0

    def update(self, news: Progress) -> None:
        """Take a piece of news."""
        idle = news.layer is None or news.phase in _IDLE
        self.fetched |= not idle
        if self._late and idle and not self.begun:
            return
        if not self.begun:
            self.begun = True
            self._write("".join(line + "\n" for line in self._begin()))
        if news.layer is None:
            return
        name = news.layer.short
        layer = self._layers.get(name)
        fresh = layer is None
        if layer is None:
            layer = self._layers[name] = Layer(name, self._clock(), self._words)
        changed = layer.update(news.phase, news.current, news.total, self._clock())
        if not self._terminal and (changed or fresh) and news.phase not in _MOVING:
            self._write(f"{name}: {self._lines.get(news.phase, news.phase)}\n")

    def draw(self, *, last: bool = False) -> None:
        """Draw the bars anew over the old ones."""
        if not self._terminal or not self._layers:
            return
        rows, columns = terminal_size(self._fd)
        lines = self.lines(0 if last else (rows or 25) - 1, (columns or 80) - 1)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._write(up + "\r" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._drawn = len(lines)

    def lines(self, rows: int, columns: int) -> list[str]:
        """A line per layer. Where they don't fit into `rows` (0: any number), those that move, and a sum."""
        layers = list(self._layers.values())
        if not rows or len(layers) <= rows:
            return [layer.line(columns) for layer in layers]
        moving = [layer for layer in layers if layer.phase in _MOVING][: max(rows - 1, 0)]
        ended = sum(layer.phase in _ENDED for layer in layers)
        return [layer.line(columns) for layer in moving] + [f"{ended} of {len(layers)} layers complete"[:columns]]

    def _write(self, text: str) -> None:
        try:
            write_all(self._fd, text.encode())
        except OSError:
            pass  # nobody watches any more: no reason to stop


@asynccontextmanager
async def metered(
    cli: Cli, descriptor: int, begin: Callable[[], list[str]], *, quiet: bool, loading: bool = False, late: bool = False
) -> AsyncIterator[Meter | None]:
    """A meter that is drawn ten times a second while the block runs; None when nothing is to be shown."""
    if quiet:
        yield None
        return
    terminal = cli.is_tty(descriptor) and cli.environ.get("TERM") != "dumb"
    meter = Meter(descriptor, terminal=terminal, begin=begin, loading=loading, late=late)
    async with trio.open_nursery() as nursery:
        if terminal:
            nursery.start_soon(_ticking, meter)
        try:
            yield meter
        finally:
            nursery.cancel_scope.cancel()
            meter.draw(last=True)


async def _ticking(meter: Meter) -> None:
    while True:
        await trio.sleep(_PERIOD)
        meter.draw()
