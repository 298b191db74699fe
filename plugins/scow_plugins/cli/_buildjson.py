"""`--progress rawjson`: a line for each piece of news, in the form of BuildKit's SolveStatus (client/graph.go). Pure.

    {"vertexes": [{"digest", "inputs", "name", "started", "completed", "cached", "error"}]}
    {"statuses": [{"id", "vertex", "name", "current", "total", "timestamp", "started", "completed"}]}
    {"logs": [{"vertex", "stream", "data", "timestamp"}]}
    {"warnings": [{"level", "short", "url", "sourceInfo", "range"}]}

Times are RFC 3339 in UTC, `data` and `short` base64, streams 1 (output) and 2 (errors). A vertex's digest names it
within one build only. A status is a layer that is fetched, or says why a step was not found in the cache (`--explain`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scow.engine.builders import BuildEvent, Finding


#: Phases of a layer after which nothing comes.
ENDED: Final = frozenset({"complete", "exists"})


class Statuses:
    """Turns a builder's events into BuildKit's words. Remembers what each step said when it began."""

    def __init__(self, *, explain: bool = False) -> None:
        self._explain = explain
        self._vertexes: dict[int, dict[str, Any]] = {}
        self._layers: dict[tuple[int, str], str] = {}

    def lines(self, event: BuildEvent, now: float) -> Iterator[dict[str, Any]]:
        """The statuses of an event; `now` in seconds since the epoch."""
        moment = datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z")
        if event.kind == "plan":
            return
        if event.kind == "note":
            yield {"warnings": [{"level": 1, "short": _base64(event.title.encode())}]}
        elif event.kind == "start":
            yield {"vertexes": [self._begun(event, moment)]}
        elif event.kind == "status":
            yield {"statuses": [self._status(event, moment)]}
        elif event.kind == "output":
            stream = 2 if event.stream == "stderr" else 1
            vertex = self._vertexes[event.step]["digest"]
            yield {"logs": [{"vertex": vertex, "stream": stream, "data": _base64(event.data), "timestamp": moment}]}
        else:
            yield from self._ended(event, moment)

    def _status(self, event: BuildEvent, moment: str) -> dict[str, Any]:
        began = self._layers.setdefault((event.step, event.title), moment)
        status: dict[str, Any] = {
            "id": event.title,
            "vertex": self._vertexes[event.step]["digest"],
            "name": event.why,
            "current": event.current,
            "total": event.total,
            "timestamp": moment,
            "started": began,
        }
        return status | ({"completed": moment} if event.why in ENDED else {})

    def _begun(self, event: BuildEvent, moment: str) -> dict[str, Any]:
        # No two steps of one build are one vertex, also where they say the same.
        digest = "sha256:" + hashlib.sha256(f"{event.step} {event.title}".encode()).hexdigest()
        vertex: dict[str, Any] = {"digest": digest}
        if inputs := [self._vertexes[each]["digest"] for each in event.inputs]:
            vertex["inputs"] = inputs
        self._vertexes[event.step] = vertex | {"name": event.title, "started": moment}
        return self._vertexes[event.step]

    def _ended(self, event: BuildEvent, moment: str) -> Iterator[dict[str, Any]]:
        vertex = self._vertexes[event.step]
        if self._explain and event.why and event.kind == "done":
            times = {"timestamp": moment, "started": vertex["started"], "completed": moment}
            said = f"not from the cache: {event.why}"
            yield {"statuses": [{"id": said, "vertex": vertex["digest"], "current": 0, **times}]}
        ended = vertex | {"completed": moment}
        if event.kind == "cached":
            ended["cached"] = True
        elif event.kind == "failed":
            ended["error"] = event.why or "failed"
        yield {"vertexes": [ended]}


def warning(finding: Finding, file: str) -> dict[str, Any]:
    """What a check complains about."""
    short = f"{finding.rule}: {finding.message} (line {finding.line})"
    place = {"line": finding.line}
    return {
        "warnings": [
            {
                "level": 1,
                "short": _base64(short.encode()),
                "url": finding.url,
                "sourceInfo": {"filename": file, "language": "Dockerfile"},
                "range": [{"start": place, "end": place}],
            }
        ]
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
