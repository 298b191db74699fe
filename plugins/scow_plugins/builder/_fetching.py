"""Images on their way, shown like steps; of what is here already nothing is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from scow.api import ScowError
from scow.engine.builders import BuildEvent

if TYPE_CHECKING:
    from scow.engine.building import Progress, Report

#: How often the bytes of a layer are told, in seconds.
_PERIOD: Final = 0.2


@dataclass(slots=True)
class Tally:
    """How many steps there were."""

    steps: int = 0
    cached: int = 0
    shown: int = 0

    def number(self) -> int:
        """A number for what is shown next."""
        self.shown += 1
        return self.shown


@dataclass(slots=True)
class _Fetch:
    tell: Callable[[BuildEvent], None]
    tally: Tally
    name: str
    began: float
    step: int = 0
    told: dict[str, tuple[str, float]] = field(default_factory=dict)

    def report(self, news: Progress) -> None:
        if not self.step:
            self.step = self.tally.number()
            self.tell(BuildEvent("start", self.step, f"FROM {self.name}"))
        if news.layer is None:
            return
        layer = str(news.layer)
        phase, when = self.told.get(layer, ("", 0.0))
        now = time.monotonic()
        if phase == news.phase and now - when < _PERIOD:
            return
        self.told[layer] = (news.phase, now)
        phase = str(news.phase)
        self.tell(BuildEvent("status", self.step, layer, why=phase, current=news.current, total=news.total))

    def end(self, kind: str, why: str = "") -> None:
        if self.step:
            took = time.monotonic() - self.began
            self.tell(BuildEvent(kind, self.step, seconds=took, why=why))  # type: ignore[arg-type]


@contextmanager
def fetching(tell: Callable[[BuildEvent], None], tally: Tally, name: str) -> Iterator[Report]:
    """What the engine is given to report to while an image is looked for."""
    fetch = _Fetch(tell, tally, name, time.monotonic())
    try:
        yield fetch.report
    except ScowError as error:
        fetch.end("failed", error.message)
        raise
    fetch.end("done")
