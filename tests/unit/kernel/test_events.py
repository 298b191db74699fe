"""Events across processes, over turn-overs of the file, and as a trace."""

# ruff: noqa: ASYNC251
from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from scow import events as module
from scow.errors import NotFound
from scow.events import EventLog, matches
from scow.model.event import Event
from scow.trace import write_trace


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl", "c1")


def actions(events: list[Event]) -> list[str]:
    return [event.action for event in events]


def test_emit_and_past(log: EventLog) -> None:
    log.emit("container", "start", "id", name="web", exitCode=3)
    (event,) = log.past()
    assert (event.kind, event.action, event.id) == ("container", "start", "id")
    assert event.attributes == {"name": "web", "exitCode": 3, "command": "c1", "pid": os.getpid()}
    assert matches(event, {"name": "web"})
    assert not matches(event, {"name": "x"})


def test_emit_never_fails(tmp_path: Path) -> None:
    EventLog(tmp_path / "missing" / "e").emit("a", "b", "c")
    log = EventLog(tmp_path / "e")
    log.emit("a", "b", "c", odd="\udcff")
    log.emit("a", "ok", "c", odd=object())
    log.emit("a", "fine", "c")
    assert actions(list(log.past()))[-1] == "fine"


def test_spans(log: EventLog) -> None:
    with log.span("mount", "c", "overlay", layer="l") as facts:
        facts["more"] = 1
    for error in (NotFound("x"), KeyError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)), log.span("mount", "c", "overlay"):
            raise error
    ends = [event.attributes for event in log.past() if event.attributes["phase"] == "end"]
    assert [end["outcome"] for end in ends] == ["ok", "not-found", "internal", "cancelled"]
    assert ends[0]["more"] == 1
    assert ends[0]["started"] <= ends[0]["ended"]


def test_cut_and_garbled_lines_are_skipped(log: EventLog) -> None:
    log.emit("a", "one", "c")
    with log.path.open("ab") as file:
        file.write(b'nonsense\n\xff\n[]\n{"time":')
    assert actions(list(log.past())) == ["one"]


def _emitter(path: str, number: int) -> None:
    log = EventLog(Path(path), f"c{number}")
    for round_ in range(100):
        log.emit("a", f"{number}-{round_}", "c", text="x" * 500)


def test_processes_do_not_mix_their_lines(log: EventLog) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_emitter, args=(str(log.path), number)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(actions(list(log.past()))) == sorted(f"{n}-{r}" for n in range(4) for r in range(100))


async def collect(log: EventLog, count: int, started: trio.Event, **options: Any) -> list[str]:
    got: list[str] = []
    async with log.follow(since=options.get("since"), until=options.get("until")) as stream:
        started.set()
        async for event in stream:
            got.append(event.action)
            if len(got) == count:
                break
    return got


async def following(log: EventLog, count: int, act: Any) -> list[str]:
    """What a follower from now on sees of what `act` emits."""
    got: list[str] = []
    started = trio.Event()

    async def follow() -> None:
        got.extend(await collect(log, count, started))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await started.wait()
            await trio.sleep(0.02)
            await act()
    return got


async def test_follow_another_process(log: EventLog) -> None:
    log.emit("a", "before", "c")
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=_emitter, args=(str(log.path), 1))

    async def act() -> None:
        worker.start()

    assert await following(log, 100, act) == [f"1-{n}" for n in range(100)]
    worker.join()


async def test_follow_over_turn_overs(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_OVER", 2000)

    async def act() -> None:
        for number in range(60):
            log.emit("a", str(number), "c", text="x" * 200)
            await trio.sleep(0.002 if number % 3 == 0 else 0)

    assert await following(log, 60, act) == [str(number) for number in range(60)]
    assert log.path.with_suffix(".old.jsonl").exists()


async def test_follow_one_turn_over_in_a_burst(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files changed before the follower woke up once."""
    monkeypatch.setattr(module, "_TURN_OVER", 2000)

    async def act() -> None:
        for number in range(10):
            log.emit("a", str(number), "c", text="x" * 200)

    assert await following(log, 10, act) == [str(number) for number in range(10)]


def test_past_holds_both_files(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_OVER", 2000)
    for number in range(8):
        log.emit("a", str(number), "c", text="x" * 200)
    assert actions(list(log.past())) == [str(number) for number in range(8)]


def test_a_second_turn_over_at_the_same_moment_loses_nothing(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes see the full file; the slower one must not put the fresh file over the full one."""
    monkeypatch.setattr(module, "_TURN_OVER", 2000)
    for number in range(3):
        log.emit("a", str(number), "c", text="x" * 400)
    real = os.write

    def write(fd: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", real)
        count = real(fd, data)
        log.emit("a", "other", "c", text="x" * 2000)  # turns the file over
        log.emit("a", "fresh", "c")
        return count

    monkeypatch.setattr(os, "write", write)
    log.emit("a", "4", "c")
    assert actions(list(log.past())) == ["0", "1", "2", "4", "other", "fresh"]


async def test_since_and_until(log: EventLog) -> None:
    log.emit("a", "one", "c")
    time.sleep(0.01)
    between = time.time()
    log.emit("a", "two", "c")
    until = time.time()
    time.sleep(0.01)
    log.emit("a", "three", "c")
    never = trio.Event()
    with trio.fail_after(5):
        assert await collect(log, 9, never, since=0.0, until=until) == ["one", "two"]
        assert await collect(log, 9, never, since=between, until=until) == ["two"]
        assert await collect(log, 2, never, since=between) == ["two", "three"]
        start = time.time()
        assert await collect(log, 9, never, until=start + 0.1) == []
        assert time.time() - start >= 0.09


async def test_without_follow(log: EventLog) -> None:
    log.emit("a", "one", "c")
    async with log.follow(since=0, until=None, follow=False) as stream:
        assert [event.action async for event in stream] == ["one"]


def test_marks(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    start = log.mark()
    assert log.since_mark(start) == []
    log.emit("a", "one", "c")
    mark = log.mark()
    log.emit("a", "two", "c")
    assert actions(log.since_mark(start)) == ["one", "two"]
    assert actions(log.since_mark(mark)) == ["two"]
    monkeypatch.setattr(module, "_TURN_OVER", 600)
    log.emit("a", "three", "c", text="x" * 600)
    log.emit("a", "four", "c")
    assert actions(log.since_mark(mark)) == ["two", "three", "four"]
    assert actions(log.since_mark(log.mark())) == []


def test_trace(log: EventLog, tmp_path: Path) -> None:
    with log.span("fetch", "sha256:x", "registry", layer="l1"):
        with log.span("fetch", "sha256:y", "registry", layer="l2"):
            pass
        with log.span("unpack", "chain", "overlay", layer="l1"):
            pass
    log.emit("container", "start", "id", name="web")
    EventLog(log.path, "other").emit("container", "start", "id2")
    out = tmp_path / "trace.json"
    write_trace(out, list(log.past()), "c1")
    rows = json.loads(out.read_text())["traceEvents"]
    lanes = {row["args"]["name"]: row["tid"] for row in rows if row["ph"] == "M"}
    assert set(lanes) == {"l1", "l2", "id"}
    spans = [row for row in rows if row["ph"] == "X"]
    assert {(row["name"], row["tid"]) for row in spans} == {
        ("fetch registry", lanes["l1"]), ("fetch registry", lanes["l2"]), ("unpack overlay", lanes["l1"])
    }  # fmt: skip
    assert all(row["dur"] >= 0 and row["pid"] == os.getpid() and row["args"]["outcome"] == "ok" for row in spans)
    assert [row["name"] for row in rows if row["ph"] == "i"] == ["container start"]
