"""How a build looks: plain lines, a live display, JSON lines."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable

import pytest

from scow.engine.builders import BuildEvent, Finding
from scow_plugins.cli._buildview import View
from scow_plugins.cli._liveview import Running, layout, rows_of, width

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
        "#1 0.000 three",
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


def test_colours_and_tabs(pipe: tuple[int, Shown]) -> None:
    view = View(pipe[0], "plain", clock=lambda: 0.0)
    view.take(BuildEvent("start", 1, "x"))
    view.take(BuildEvent("output", 1, data=b"\x1b[1;31mred\x1b[0m\tx \x1b]8;;http://a\x07link\x1b]8;;\x07 \x1b[\n"))
    assert pipe[1]().splitlines()[1] == "#1 0.000 red     x link \\x1b["


MOMENT = "2001-09-09T01:46:40Z"


def test_json(pipe: tuple[int, Shown]) -> None:
    """Each line is one of BuildKit's statuses."""
    view = View(pipe[0], "rawjson", explain=True, now=lambda: 1e9)
    view.take(BuildEvent("plan", 0, total=3))
    feed(view)
    view.take(BuildEvent("start", 3, "[a 2/2] COPY y", "a", inputs=(2, 1)))
    view.take(BuildEvent("output", 3, data=b"x", stream="stderr"))
    view.take(BuildEvent("failed", 3, why="it broke"))
    view.warned((Finding("StageNameCasing", "wrong", 7, url="https://x"),), "D")
    lines = [json.loads(line) for line in pipe[1]().splitlines()]
    first = lines[0]["vertexes"][0]["digest"]
    begun = {"digest": first, "name": "[a 1/2] RUN x", "started": MOMENT}
    assert lines[0] == {"vertexes": [begun]}
    assert lines[1] == {"logs": [{"vertex": first, "stream": 1, "data": "b25lCnR3bw0=", "timestamp": MOMENT}]}
    why = {"id": "not from the cache: changed: the command", "vertex": first, "current": 0}
    assert lines[4] == {"statuses": [{**why, "timestamp": MOMENT, "started": MOMENT, "completed": MOMENT}]}
    assert lines[5] == {"vertexes": [{**begun, "completed": MOMENT}]}
    assert lines[7]["vertexes"][0]["cached"] is True
    assert lines[8] == {"warnings": [{"level": 1, "short": "Y2FyZWZ1bA=="}]}
    second = lines[7]["vertexes"][0]["digest"]
    assert lines[9]["vertexes"][0]["inputs"] == [second, first]
    assert lines[9]["vertexes"][0]["digest"] not in (first, second)
    assert lines[10]["logs"][0]["stream"] == 2
    assert lines[11]["vertexes"][0]["error"] == "it broke"
    (complaint,) = lines[12]["warnings"]
    assert base64.b64decode(complaint["short"]) == b"StageNameCasing: wrong (line 7)"
    assert complaint["range"] == [{"start": {"line": 7}, "end": {"line": 7}}]
    assert complaint["sourceInfo"]["filename"] == "D"


def test_live(pipe: tuple[int, Shown]) -> None:
    view = View(pipe[0], "tty", clock=lambda: 0.0)
    view.take(BuildEvent("plan", 0, total=2))
    view.take(BuildEvent("start", 1, "[a 1/1] RUN x", "a"))
    view.take(BuildEvent("output", 1, data=b"\n".join(b"%d" % number for number in range(20)) + b"\n"))
    view.draw()
    view.draw()
    view.take(BuildEvent("start", 2, "write the cache"))
    view.take(BuildEvent("failed", 1, seconds=2))
    view.finish("ERROR")
    text = pipe[1]()
    assert text.startswith("[+] Building 0.0s (0/2)\n => [a 1/1] RUN x")
    assert " => => 19\n" in text
    assert " => => 13\n" not in text
    assert "\x1b[8A\r\x1b[J" in text
    ended = text.split("\x1b[8A\r\x1b[J")[2]
    assert ended.startswith(" => ERROR [a 1/1] RUN x")
    assert "\n[+] Building 0.0s (1/3)\n => write the cache" in ended
    assert text.endswith("\x1b[2A\r\x1b[J[+] Building 0.0s (1/3) ERROR\n")


def test_images_on_their_way(pipe: tuple[int, Shown]) -> None:
    """Plain lines say what has come; programs hear of all of it."""
    layer = "sha256:" + "ab" * 32
    news = [
        BuildEvent("start", 1, "FROM x"),
        BuildEvent("status", 1, layer, why="downloading", current=10, total=2000),
        BuildEvent("status", 1, layer, why="complete", current=2000, total=2000),
        BuildEvent("done", 1, seconds=2),
    ]
    programs = View(pipe[0], "rawjson", now=lambda: 1e9)
    people = View(pipe[0], "plain", clock=lambda: 0.0)
    for view in (programs, people):
        for event in news:
            view.take(event)
    lines = pipe[1]().splitlines()
    (status,) = json.loads(lines[2])["statuses"]
    assert (status["id"], status["current"], status["total"], status["name"]) == (layer, 2000, 2000, "complete")
    assert status["completed"] == status["started"] == MOMENT
    assert "completed" not in json.loads(lines[1])["statuses"][0]
    assert lines[4:] == ["#1 FROM x", "#1 0.000 abababababab complete 2kB", "#1 DONE 2.0s", ""]


def test_nothing_is_wider_or_higher_than_the_terminal() -> None:
    running = [
        Running(f"step {number} " + "日本" * 30, 0.0, tail=["wide " + "語" * 40, "e\u0301" * 200, "short"])
        for number in range(5)
    ]
    for rows in range(1, 30):
        for columns in (1, 5, 20, 79, 200):
            lines = layout("[+] Building " + "x" * 100, running, 12.34, rows, columns)
            assert len(lines) <= max(rows - 1, 1)
            assert all(width(line) < max(columns, 2) for line in lines), (rows, columns, lines)
    # Each step is shown before the first line of output; of output the newest.
    lines = layout("head", running, 0.0, 9, 80)
    assert [line for line in lines if "step" in line] == [line for line in lines[1:] if not line.startswith(" => =>")]
    assert sum("step" in line for line in lines) == 5
    assert [line for line in lines if "=> =>" in line] == [" => => short"] * 2
    # Fewer rows than steps: the newest.
    assert [line[4:10] for line in layout("head", running, 0.0, 4, 80)[1:]] == ["step 3", "step 4"]
    assert len(layout("head", running, 0.0, 0, 0)) == 21


def test_lines_that_a_smaller_terminal_has_wrapped_go_too() -> None:
    assert rows_of(["x" * 80, "", "日" * 11], 20) == 4 + 1 + 2
    assert rows_of(["x" * 80], 0) == 1
