"""What the engine tells to whoever listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened. `kind` is container, image, stage, engine; `action` Docker's word (start, die, pull, …).

    For `stage` events: `action` is the stage, `attributes` hold plugin, outcome (ok or the error's kind),
    and `started` and `ended` in seconds since the epoch.
    """

    time: float
    kind: str
    action: str
    id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
