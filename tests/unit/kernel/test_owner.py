"""Whose launcher a command speaks to, and whose modules it runs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import scow
from scow import boot, warm

SCRIPTS = Path(scow.__file__).parent.parent / "bin"
OTHER = 12345


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes somebody else")
def test_a_launcher_of_somebody_else_gets_nothing(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place / "launcher.sock"))
    # Whoever listens is who the kernel tells of.
    os.seteuid(OTHER)
    try:
        listener.listen(1)
    finally:
        os.seteuid(0)
    assert warm.connect(str(place / "launcher.sock")) is None
    listener.listen(1)
    ours = warm.connect(str(place / "launcher.sock"))
    assert ours is not None
    ours.close()
    listener.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_no_launcher_where_others_may_put_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "run"
    place.mkdir()
    place.chmod(0o777)
    monkeypatch.setenv("SCOW_RUN", str(place))
    monkeypatch.setattr(warm, "start", lambda path: pytest.fail("started one"))
    assert boot._through_launcher(["version"]) is None
    place.chmod(0o700)
    os.chown(place, OTHER, -1)
    assert boot._through_launcher(["version"]) is None


def test_another_interpreter_has_another_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """One package, used by several virtual environments: each has plugins of its own."""
    found = {warm.socket_path("/run/x")}
    for name, value in (("executable", "/venv/bin/python"), ("prefix", "/venv"), ("path", [*sys.path, "/plugins"])):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, value)
            found.add(warm.socket_path("/run/x"))
    assert len(found) == 4


@pytest.mark.parametrize("linked", [False, True])
def test_the_command_is_isolated(tmp_path: Path, linked: bool) -> None:
    """What pip makes of the scripts (`#!python` becomes the interpreter, options are lost), with a trap on the way."""
    place = tmp_path / "bin dir"
    place.mkdir()
    shutil.copy(SCRIPTS / "scow", place)
    script = place / "scow-python"
    script.write_text(f"#!{sys.executable}\nimport sys\nprint(sys.flags.isolated, sys.argv[1:])\n")
    script.chmod(0o755)
    command = place / "scow"
    if linked:
        command = tmp_path / "link"
        command.symlink_to(place / "scow")
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text("raise SystemExit('trapped')\n")
    environment = {**os.environ, "PYTHONPATH": str(trap)}
    done = subprocess.run([command, "a b", "--c"], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 ['a b', '--c']\n", "")
