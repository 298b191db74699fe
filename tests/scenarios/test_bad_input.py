"""What goes wrong says so in one message, with the right exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from .conftest import Scow, free_port, require


def test_image_and_tag_that_do_not_exist(mirrored: Scow) -> None:
    mirrored.fails("run", "--rm", "nosuch", code=125, says="nosuch")
    mirrored.fails("pull", "busybox:nosuch", code=1, says="busybox:nosuch")


def test_registry_that_is_down(scow: Scow) -> None:
    scow.fails("run", f"127.0.0.1:{free_port()}/x", code=125, says="127.0.0.1")


def test_bad_names(scow: Scow) -> None:
    scow.fails("run", "UPPER", code=125, says="lower case")
    scow.fails("pull", "a@sha256:12", code=2, says="sha256")


def test_commands_that_can_not_run(pulled: Scow) -> None:
    pulled.fails("run", "--rm", "busybox", "nosuch", code=127, says="nosuch")
    pulled.fails("run", "--rm", "busybox", "/etc/passwd", code=126, says="/etc/passwd")
    pulled.fails("run", "--rm", "-u", "nobody-here", "busybox", "true", code=125, says="nobody-here")


def test_taken_name(pulled: Scow) -> None:
    pulled("run", "--name", "mine", "busybox", "true")
    pulled.fails("run", "--name", "mine", "busybox", "true", code=125, says="mine")


def test_missing_mount_source(pulled: Scow) -> None:
    mount = "type=bind,src=/no/such/place,dst=/x"
    pulled.fails("run", "--rm", "--mount", mount, "busybox", "true", code=125, says="/no/such/place")
    assert not Path("/no/such").exists()


def test_unknown_configuration_key(pulled: Scow) -> None:
    pulled.config.write_text("storrage = 'overlay'\n")
    pulled.fails("ps", code=2, says="storrage")
    pulled.config.write_text("[plugins.bridge]\nsubnett = '10.0.0.0/8'\n")
    pulled.fails("run", "--rm", "busybox", "true", code=125, says="subnett")
    pulled.config.write_text("")


def test_unknown_plugin_and_flag(pulled: Scow) -> None:
    pulled.fails("run", "--rm", "--storage", "zfs", "busybox", "true", code=125, says="zfs")
    pulled.fails("run", "--rm", "--gpus", "all", "busybox", "true", code=125, says="--gpus")
    pulled.fails("run", "--frobnicate", "busybox", code=125, says="unknown flag: --frobnicate")


def test_not_root(scow: Scow) -> None:
    require("unshare")
    # In a user namespace without a mapping we are nobody, and may still read the interpreter's files.
    done = subprocess.run(
        ["unshare", "--user", *scow.command("ps")], capture_output=True, check=False, env=scow.environment()
    )
    assert done.returncode == 1
    assert b"root" in done.stderr
    assert b"Traceback" not in done.stderr


def test_unknown_container(scow: Scow) -> None:
    for command in ("start", "stop", "rm", "logs", "inspect", "kill", "wait"):
        scow.fails(command, "nobody", code=1, says="nobody")
    scow.fails("exec", "nobody", "true", code=1, says="nobody")


def test_failed_start_leaves_no_trace_with_rm(pulled: Scow) -> None:
    pulled.fails("run", "--rm", "--name", "xx", "busybox", "nosuch", code=127, says="nosuch")
    assert pulled("ps", "-aq") == ""
    pulled("run", "--rm", "--name", "xx", "busybox", "true")


def test_failed_start_without_rm_says_why(pulled: Scow) -> None:
    pulled.fails("run", "--name", "xx", "busybox", "nosuch", code=127, says="nosuch")
    state = json.loads(pulled("inspect", "xx"))[0]["State"]
    assert state["ExitCode"] == 127
    assert "nosuch" in state["Error"]


def test_full_disk(mirrored: Scow, tmp_path: Path) -> None:
    """A pull onto a full disk says so, and goes on after room was made."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        mirrored.root = small / "root"
        errors = mirrored.fails("--run", str(mirrored.run_dir), "pull", "busybox", code=1, says="full")
        assert "hint:" in errors
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        mirrored("pull", "-q", "busybox")
        assert "busybox" in mirrored("images")
        mirrored.stop_launcher()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
        mirrored.root = tmp_path / "root"


@pytest.mark.parametrize("what", ["import", "law"])
def test_broken_plugin_is_named_and_the_rest_goes_on(pulled: Scow, tmp_path: Path, what: str) -> None:
    site = tmp_path / "site"
    info = site / "bad_plugin-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-plugin\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[scow.mount]\nawful = bad_plugin:Plugin\n")
    body = {
        "import": "import no_such_module_anywhere\n",
        "law": (
            "from scow.api import hookimpl\nclass Plugin:\n    def __init__(self, context): ...\n"
            "    @hookimpl\n    async def mount(self, request): ...\n"
        ),
    }[what]
    (site / "bad_plugin.py").write_text(body)
    pulled.env["PYTHONPATH"] = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    pulled.stop_launcher()
    listed = pulled("plugins")
    assert "awful" in listed
    assert ("no_such_module_anywhere" if what == "import" else "async") in listed
    assert pulled("run", "--rm", "busybox", "echo", "still here") == "still here\n"
