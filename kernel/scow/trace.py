"""A command's events as a Chrome trace, which Perfetto and chrome://tracing open (Trace Event Format, "X" events)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from scow.model.event import Event


def write_trace(path: Path, events: list[Event], command: str) -> None:
    """Write the stages of one command, one lane for each subject of each process. Raises OSError."""
    path.write_bytes(msgspec.json.encode({"traceEvents": _rows(events, command), "displayTimeUnit": "ms"}))


def _rows(events: list[Event], command: str) -> list[dict[str, Any]]:
    lanes: dict[tuple[int, str], int] = {}
    rows: list[dict[str, Any]] = []
    for event in events:
        facts = dict(event.attributes)
        if facts.pop("command", "") != command:
            continue
        pid = facts.pop("pid", 0)
        lane = facts.get("layer") or event.id
        tid = lanes.setdefault((pid, lane), len(lanes) + 1)
        if event.kind != "stage":
            name = f"{event.kind} {event.action}"
            args = facts | {"id": event.id}
            where = {"ts": event.time * 1e6, "pid": pid, "tid": tid}
            rows.append({"ph": "i", "s": "g", "name": name, "args": args, **where})
        elif facts.pop("phase") == "end":
            started, ended = facts.pop("started"), facts.pop("ended")
            rows.append({"ph": "X", "cat": "stage", "name": f"{event.action} {facts['plugin']}", "ts": started * 1e6,
                         "dur": (ended - started) * 1e6, "pid": pid, "tid": tid,
                         "args": facts | {"id": event.id}})  # fmt: skip
    names = [
        {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": lane[:32]}}
        for (pid, lane), tid in lanes.items()
    ]
    return names + rows
