"""Small answers that scripts written for docker rely on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Scow

pytestmark = pytest.mark.root


def test_start_of_a_running_one(pulled: Scow) -> None:
    pulled("run", "-d", "--name", "held", "--network", "none", "busybox", "sleep", "60")
    pid = pulled("inspect", "-f", "{{.State.Pid}}", "held")
    assert pulled("start", "held") == "held\n"
    assert pulled("inspect", "-f", "{{.State.Pid}}", "held") == pid
    pulled("pause", "held")
    pulled.fails("start", "held", code=1, says="paused")
    pulled("unpause", "held")
    pulled("rm", "-f", "held")


def test_exec_takes_a_variable_away(pulled: Scow, tmp_path: Path) -> None:
    pulled("run", "-d", "--name", "held", "--network", "none", "-e", "GONE=image", "busybox", "sleep", "60")
    pulled.env["HERE"] = "user"
    show = ("held", "sh", "-c", "echo ${GONE-none} ${HERE-none}")
    assert pulled("exec", "-e", "GONE", "-e", "HERE", *show) == "none user\n"
    (tmp_path / "file").write_text("GONE\nHERE\n")
    assert pulled("exec", "--env-file", str(tmp_path / "file"), *show) == "image user\n"
    pulled("rm", "-f", "held")


def test_the_host_s_name_and_search(pulled: Scow) -> None:
    on_host = ("run", "--rm", "--network", "host")
    assert pulled(*on_host, "busybox", "hostname").strip() == os.uname().nodename
    assert pulled(*on_host, "-h", "mine", "busybox", "hostname") == "mine\n"
    found = pulled("run", "--rm", "--dns", "9.9.9.9", "--dns-search", ".", "busybox", "cat", "/etc/resolv.conf")
    assert [line for line in found.splitlines() if line.startswith(("search", "nameserver"))] == ["nameserver 9.9.9.9"]
    # What isn't given is still the host's.
    servers = [line.split()[1] for line in Path("/etc/resolv.conf").read_text().splitlines() if "nameserver " in line]
    found = pulled(*on_host, "--dns-search", "x.example", "busybox", "cat", "/etc/resolv.conf")
    assert [line.split()[1] for line in found.splitlines() if line.startswith("nameserver")] == servers
    assert "search x.example" in found


def test_cp_onto_a_link(pulled: Scow, tmp_path: Path) -> None:
    links = "mkdir /w; echo 1 > /w/f; ln -s /w/f /w/abs; ln -s ../w/f /w/rel; ln -s new /w/dangling"
    pulled("run", "--name", "done", "--network", "none", "busybox", "sh", "-c", links)
    for link, target in (("abs", "f"), ("rel", "f"), ("dangling", "new")):
        (tmp_path / "x").write_text(link)
        pulled("cp", str(tmp_path / "x"), f"done:/w/{link}")
        pulled("cp", f"done:/w/{target}", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text() == link
    pulled("cp", "done:/w/abs", str(tmp_path / "kept"))
    assert (tmp_path / "kept").is_symlink()
    # On this machine, too.
    (tmp_path / "here").symlink_to("there")
    pulled("cp", "done:/w/f", str(tmp_path / "here"))
    assert (tmp_path / "here").is_symlink()
    assert (tmp_path / "there").read_text() == "rel"
    pulled("rm", "done")


def test_events_of_a_container(pulled: Scow) -> None:
    labels = ("--label", "app=x", "--label", "name=theirs", "--label", "kind=odd")
    pulled("run", "-d", "--name", "held", "--network", "none", *labels, "busybox", "sleep", "60")
    pulled("stop", "-t", "0", "held")
    pulled("rm", "held")
    form = "{{.Type}} {{.Action}} {{.Actor.Attributes.app}} {{.Actor.Attributes.name}} {{.Actor.Attributes.kind}}"
    lines = pulled("events", "--since", "10m", "--until", "0s", "--format", form).splitlines()
    told = [line.split()[1:] for line in lines if line.startswith("container ")]
    assert [action for action, *_ in told] == ["create", "start", "kill", "die", "stop", "destroy"]
    assert {tuple(rest) for _, *rest in told} == {("x", "held", "odd")}
    assert not [line for line in lines if line.startswith("stage")]


def test_mounts_of_what_does_not_run(pulled: Scow, tmp_path: Path) -> None:
    """`cp` in and out of them works as in a container that runs: of one that was created, and of one that has ended."""
    home = tmp_path / "mounts"
    (home / "v").mkdir(parents=True)
    (home / "v" / "a").write_text("a")
    (home / "f").write_text("file")
    pulled(
        "create", "--name", "box", "-v", f"{home}/v:/v", "-v", f"{home}/f:/srv/file", "-v", f"{home}/v:/ro:ro",
        "busybox", "true",
    )  # fmt: skip
    for _ in ("created", "exited"):
        pulled("cp", "box:/v/a", str(home / "out"))
        assert (home / "out").read_text() == "a"
        pulled("cp", "box:/srv/file", str(home / "single"))
        assert (home / "single").read_text() == "file"
        (home / "new").write_text("new")
        pulled("cp", str(home / "new"), "box:/v/new")
        assert (home / "v" / "new").read_text() == "new"
        pulled.fails("cp", str(home / "new"), "box:/ro/new", code=1, says="read-only")
        (home / "v" / "new").unlink()
        pulled("start", "-a", "box")
    pulled("rm", "box")
