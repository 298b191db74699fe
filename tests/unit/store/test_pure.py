"""What needs no store: which changes are told, commit's instructions, where a copy goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scow.engine.instructions import apply_instructions
from scow.engine.rootfs import told
from scow.errors import Invalid, NotFound
from scow.model.storage import Change, ChangeKind
from scow_plugins.cli._copying import arrange

A, C, D = ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED


def test_directories_of_changes_are_told_and_others_are_not() -> None:
    changes = [
        Change(b"", C, time_only=True),
        Change(b"a", C, time_only=True),
        Change(b"b", C, time_only=True),
        Change(b"b/c/d", D),
        Change(b"etc", C, time_only=True),
        Change(b"etc/hosts", A),
        Change(b"mnt", A),
        Change(b"var/lib/scow/x", D),
    ]
    found = [(each.path, each.kind) for each in told(changes, {b"etc/hosts", b"mnt"}, [b"var/lib/scow"])]
    assert found == [(b"b", C), (b"b/c", C), (b"b/c/d", D)]


def test_instructions() -> None:
    changed = apply_instructions(
        {"Env": ["A=1", "B=2"], "WorkingDir": "/srv"},
        [
            "env A=3 C='x y'",
            "CMD echo hi",
            'ENTRYPOINT ["/bin/x", "-y"]',
            "EXPOSE 80 53/udp",
            "LABEL k=v",
            "WORKDIR sub",
            "USER me",
            "VOLUME /data",
            "STOPSIGNAL SIGINT",
            "ENV D some words",
        ],
    )
    assert changed == {
        "Env": ["A=3", "B=2", "C=x y", "D=some words"],
        "Cmd": ["/bin/sh", "-c", "echo hi"],
        "Entrypoint": ["/bin/x", "-y"],
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Labels": {"k": "v"},
        "WorkingDir": "/srv/sub",
        "User": "me",
        "Volumes": {"/data": {}},
        "StopSignal": "SIGINT",
    }


@pytest.mark.parametrize("change", ["", "RUN x", "EXPOSE nope", "ENV", "LABEL =x", "USER", "ENV A=1 'open"])
def test_bad_instructions(change: str) -> None:
    with pytest.raises(Invalid, match="change"):
        apply_instructions({}, [change])


def test_where_copies_go(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    file, directory = os.stat(tmp_path / "file"), os.stat(tmp_path)

    def goes(source: str, status: os.stat_result, target: str, there: os.stat_result | None, name: bytes) -> str:
        place, rename = arrange(source, status, target, there)
        return f"{place}|{rename(name).decode()}"

    assert goes("/x/f", file, "/y", directory, b"f") == "/y|f"
    assert goes("/x/f", file, "/y/g", None, b"f") == "/y/|g"
    assert goes("/x/f", file, "/y/g", file, b"f") == "/y/|g"
    assert goes("/x/d", directory, "/y", directory, b"d/in") == "/y|d/in"
    assert goes("/x/d/.", directory, "/y", directory, b"./in") == "/y|./in"
    assert goes("/x/d", directory, "/y/new/", None, b"d/in") == "/y/|new/in"
    assert goes("/x/d/.", directory, "/y/new", None, b"./in") == "/y/|new/in"
    with pytest.raises(Invalid):
        arrange("/x/d", directory, "/y", file)
    with pytest.raises(NotFound):
        arrange("/x/f", file, "/y/", None)
