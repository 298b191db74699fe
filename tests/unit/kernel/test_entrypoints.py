"""Entry points read by hand are those that importlib.metadata finds."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from scow.entrypoints import EntryPoint, scan
from scow.frontend import load_frontend
from scow.plugins import STAGES


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def test_the_same_as_importlib_metadata() -> None:
    theirs = {
        (point.group, point.name, point.value, normal(point.dist.name), point.dist.version)
        for stage in (*STAGES, "build", "frontend")
        for point in importlib.metadata.entry_points(group=f"scow.{stage}")
        if point.dist is not None
    }
    ours = {(p.group, p.name, f"{p.module}:{p.attribute}", normal(p.distribution), p.version) for p in scan()}
    assert ours == theirs
    assert ours


def install(folder: Path, name: str, text: str | bytes) -> None:
    info = folder / name
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_bytes(text.encode() if isinstance(text, str) else text)


def test_the_first_distribution_of_a_name_wins(tmp_path: Path) -> None:
    install(tmp_path / "a", "Scow_Toy-2.0.dist-info", "[scow.mount]\nx = new:Plugin\n")
    install(tmp_path / "b", "scow.toy-1.0.dist-info", "[scow.mount]\nx = old:Plugin\n")
    found = scan([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "missing")])
    assert found == [EntryPoint("scow.mount", "x", "new", "Plugin", "Scow_Toy", "2.0")]


def test_what_a_file_may_look_like(tmp_path: Path) -> None:
    text = """
    # a comment
    [console_scripts]
    scow = nothing:main

    [ scow.mount ]
    a=m.sub:Plugin.inner
    b = m : Plugin [extra]
    ; another
    [other.scow.mount]
    c = m:Plugin
    """
    install(tmp_path, "toy-1.0.egg-info", text)
    assert scan([str(tmp_path)]) == [
        EntryPoint("scow.mount", "a", "m.sub", "Plugin.inner", "toy", "1.0"),
        EntryPoint("scow.mount", "b", "m", "Plugin", "toy", "1.0"),
    ]


def test_broken_metadata_is_passed_over(tmp_path: Path) -> None:
    install(tmp_path, "bytes-1.dist-info", b"[scow.mount]\nx = \xff\xfe:Plugin\n")
    (tmp_path / "file-1.dist-info").write_text("a file")
    (tmp_path / "empty.dist-info").mkdir()
    install(tmp_path, "good-1.dist-info", "[scow.mount]\nnonsense\ny = m:Plugin\n")
    found = scan([str(tmp_path)])
    assert [point.name for point in found] == ["nonsense", "y"]
    with pytest.raises((ImportError, ValueError)):
        found[0].load()


def test_load() -> None:
    point = EntryPoint("scow.mount", "x", "pathlib", "Path.home", "d", "1")
    assert point.load() == Path.home
    assert load_frontend("no-such") is None
