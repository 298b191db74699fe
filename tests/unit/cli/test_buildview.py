"""How a build looks: plain lines, a live display, JSON lines."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from scow.engine.builders import BuildEvent
from scow_plugins.cli._buildview import View

Shown = Callable[[], str]


@pytest.fixture
def pipe() -> tuple[int, Shown]:
    reading, writing = os.pipe()

    def shown() -> str:
        os.close(writing)
        with open(reading, "rb") as file:
            return file.read().decode()

    return writing, shown


def feed(view: View) -> None:
    view.take(BuildEvent("start", 1, "[a 1/2] RUN x"))
    view.take(BuildEvent("output", 1, data=b"one\ntwo\r"))
    view.take(BuildEvent("output", 1, data=b"half\rthree\x1b[2J\n"))
    view.take(BuildEvent("output", 1, data=b"no end"))
    view.take(BuildEvent("done", 1, seconds=1.25, why="changed: the command"))
    view.take(BuildEvent("start", 2, "[a 2/2] COPY y"))
    view.take(BuildEvent("cached", 2))
    view.take(BuildEvent("note", 0, "careful"))


def test_plain(pipe: tuple[int, Shown]) -> None:
    feed(View(pipe[0], "plain", clock=lambda: 0.0))
    assert pipe[1]().splitlines() == [
        "#1 [a 1/2] RUN x",
        "#1 0.000 one",
        "#1 0.000 three\\x1b[2J",
        "#1 0.000 no end",
        "#1 DONE 1.2s",
        "",
        "#2 [a 2/2] COPY y",
        "#2 CACHED",
        "",
        "[Warning] careful",
    ]


def test_why(pipe: tuple[int, Shown]) -> None:
    feed(View(pipe[0], "plain", explain=True))
    assert "#1 not from the cache: changed: the command\n" in pipe[1]()


def test_json(pipe: tuple[int, Shown]) -> None:
    feed(View(pipe[0], "rawjson"))
    lines = [json.loads(line) for line in pipe[1]().splitlines()]
    assert [line["kind"] for line in lines] == [
        "start", "output", "output", "output", "done", "start", "cached", "note",
    ]  # fmt: skip
    assert lines[1]["data"] == "b25lCnR3bw0="


def test_live(pipe: tuple[int, Shown]) -> None:
    view = View(pipe[0], "tty", clock=lambda: 0.0)
    view.take(BuildEvent("start", 1, "[a 1/1] RUN x"))
    view.take(BuildEvent("output", 1, data=b"\n".join(b"%d" % number for number in range(20)) + b"\n"))
    view.draw()
    view.draw()
    view.take(BuildEvent("failed", 1, seconds=2))
    view.finish()
    text = pipe[1]()
    assert " => => 19\n" in text
    assert " => => 13\n" not in text
    assert "\x1b[7A\r\x1b[J" in text
    assert text.split("\n")[-2].startswith("\x1b[7A\r\x1b[J => ERROR [a 1/1] RUN x")
