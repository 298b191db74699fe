"""A stranger's distribution, installed beside scow's wheel, is a plugin like any other.

Both are built and installed for real, into an environment of their own, without the package index.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
NULL = HERE / "scow-null"

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    *(
        pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"needs the Python package {name}")
        for name in ("pip", "hatchling")
    ),
]


class Environment:
    """A virtual environment with scow's wheel and the stranger's; dependencies come from the one that tests run in."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "venv" / "bin"
        self.root = directory / "root"
        run([sys.executable, "-m", "venv", "--without-pip", str(self.bin.parent)])
        site = next((self.bin.parent / "lib").glob("python3*")) / "site-packages"
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "-q"]
        run([*pip, "--no-index", "--no-deps", "--no-build-isolation", str(PROJECT), str(NULL)])

    def scow(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the installed command on a root of its own, without a launcher."""
        environment = {**os.environ, "SCOW_ROOT": str(self.root), "SCOW_WARM": "0"}
        environment.pop("PYTHONPATH", None)
        environment.pop("SCOW_RUN", None)
        return run([str(self.bin / "scow"), *arguments], env=environment, check=check)


def run(command: list[str], env: dict[str, str] | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd="/", timeout=120, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    return Environment(tmp_path_factory.mktemp("thirdparty"))


def test_it_is_listed_with_its_distribution(environment: Environment) -> None:
    rows = [line.split() for line in environment.scow("plugins").stdout.splitlines()]
    mine = next(row for row in rows if row[0] == "null")
    assert mine[1:5] == ["network", "scow_null", "1.2.3", "yes"]
    assert len(mine) == 5, "a stranger's plugin isn't picked unless asked for"


def test_it_carries_a_container(environment: Environment) -> None:
    shown = environment.scow("run", "--rm", "--network", "null", "host:", "cat", "/proc/net/dev").stdout
    assert [line.split(":")[0].strip() for line in shown.splitlines()[2:]] == ["lo"]


def test_its_errors_are_shown_like_ours(environment: Environment) -> None:
    refused = environment.scow("run", "--rm", "--network", "null", "-p", "80", "host:", "true", check=False)
    assert refused.returncode == 125
    assert "network null can't publish port" in refused.stderr
    assert "hint: use --network bridge" in refused.stderr


def test_it_keeps_the_contract(environment: Environment) -> None:
    closing = run([str(environment.bin / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(NULL)]).stdout
    assert " passed" in closing.splitlines()[-1]
