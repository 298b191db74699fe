"""The real thing: a registry on loopback, the scow command as its users run it, and a machine left as it was."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scow import warm
from scow.paths import Paths

from . import images, machine

SCRIPT = Path(__file__).parents[2] / "kernel" / "bin" / "scow-python"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "scenarios" in item.path.parts:
            item.add_marker(pytest.mark.root)


def require(*programs: str) -> None:
    """Skip, naming the program that is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}")


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry on a free port of loopback; gives host:port."""
    require("docker-registry", "skopeo")
    home = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (home / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {home}/data}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(home / "config.yml")], stdout=log, stderr=log)
    try:
        assert machine.eventually(lambda: _answers(f"http://127.0.0.1:{port}/v2/")), (home / "log").read_text()
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="session")
def busybox(registry: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """library/busybox:latest in the registry: two layers."""
    require("busybox")
    tree = images.busybox_tree(tmp_path_factory.mktemp("busybox") / "tree")
    (tree / "second").mkdir()
    (tree / "second" / "layer").write_text("upper\n")
    layers = [images.layer_of(tree, ["bin", "etc", "tmp", "root", "var", "www"]), images.layer_of(tree, ["second"])]
    config = {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Labels": {"kind": "test"}}
    layout = images.write_layout(tree.parent / "layout", layers, config)
    images.push(layout, registry, "library/busybox:latest")
    images.push(layout, registry, "team/tool:1.2")
    return "busybox"


@pytest.fixture(scope="session")
def debian_tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small Debian as files; whoever changes them does so after `debian_layer` was made."""
    require("debootstrap")
    tree = tmp_path_factory.mktemp("debian") / "tree"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", str(tree)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"needs a Debian mirror that debootstrap reaches: {made.stdout[-200:]}")
    yield tree
    shutil.rmtree(tree)


@pytest.fixture(scope="session")
def debian_layer(debian_tree: Path) -> bytes:
    """The small Debian as a layer."""
    return images.layer_of(debian_tree)


@pytest.fixture(scope="session")
def debian(registry: str, debian_layer: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    """library/debian:bookworm in the registry, configured as Docker's own."""
    config = {"Cmd": ["bash"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]}
    layout = images.write_layout(tmp_path_factory.mktemp("debian-image") / "layout", [debian_layer], config)
    images.push(layout, registry, "library/debian:bookworm")
    shutil.rmtree(layout)
    return "debian:bookworm"


@dataclass
class Scow:
    """The command line on an engine of its own."""

    root: Path
    run_dir: Path
    config: Path
    warm: bool
    storage: str = ""
    env: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        # With byte code, as for an installed scow: else each command would compile it anew.
        kept = {k: v for k, v in os.environ.items() if not k.startswith("SCOW_") and k != "PYTHONDONTWRITEBYTECODE"}
        ours = {
            "SCOW_ROOT": str(self.root),
            "SCOW_RUN": str(self.run_dir),
            "SCOW_WARM": "1" if self.warm else "0",
            "SCOW_WARM_IDLE": "20",
            "HOME": str(self.root.parent),
        }
        return kept | ours | self.env

    def command(self, *args: str) -> list[str]:
        return [sys.executable, str(SCRIPT), "--config", str(self.config), *args]

    def try_(self, *args: str, stdin: bytes | None = None, timeout: float = 90) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end, whatever that is."""
        source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            self.command(*args),
            capture_output=True,
            timeout=timeout,
            check=False,
            env=self.environment(),
            **source,
        )

    def __call__(self, *args: str, stdin: bytes | None = None, timeout: float = 90) -> str:
        """Run a command that must succeed; gives its standard output."""
        done = self.try_(*args, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, (
            f"scow {' '.join(args)}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}"
        )
        return done.stdout.decode()

    def fails(self, *args: str, code: int, says: str, timeout: float = 90) -> str:
        """Run a command that must fail with a code and a message; gives its standard error."""
        done = self.try_(*args, timeout=timeout)
        errors = done.stderr.decode()
        assert done.returncode == code, f"scow {' '.join(args)}: {done.returncode}, not {code}\n{errors}"
        assert says in errors, errors
        assert "Traceback" not in errors, errors
        return errors

    def start(self, *args: str, **options: object) -> subprocess.Popen[bytes]:
        """Start a command and leave it running."""
        return subprocess.Popen(self.command(*args), env=self.environment(), **options)  # type: ignore[call-overload]

    def stop_launcher(self) -> None:
        """End this engine's launcher, if it has one."""
        for path in self.run_dir.glob("launcher-*.sock"):
            sock = warm.connect(str(path))
            if sock is not None:
                warm.send(sock, [b"quit"], [])
                sock.close()


@pytest.fixture(params=[True, False], ids=["warm", "cold"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """With the launcher, and without."""
    return bool(request.param)


@pytest.fixture
def scow(launcher: bool, tmp_path: Path) -> Iterator[Scow]:
    """A scow without a registry of its own; everything it leaves behind fails the test."""
    yield from engine_at(tmp_path, launcher, "")


@pytest.fixture
def pulled(launcher: bool, tmp_path: Path, registry: str, busybox: str) -> Iterator[Scow]:
    """A scow whose docker.io is mirrored by the registry, with busybox pulled."""
    for engine in engine_at(tmp_path, launcher, registry):
        engine("pull", "-q", busybox)
        yield engine


@pytest.fixture
def mirrored(launcher: bool, tmp_path: Path, registry: str, busybox: str) -> Iterator[Scow]:
    """A scow whose docker.io is mirrored by the registry, with an empty store."""
    yield from engine_at(tmp_path, launcher, registry)


def engine_at(tmp_path: Path, warmed: bool, registry: str) -> Iterator[Scow]:
    """A scow in a directory, for a fixture's time; with a registry, that is docker.io's mirror."""
    config = tmp_path / "config.toml"
    config.write_text(f'[registries."docker.io"]\nmirrors = ["http://{registry}"]\n' if registry else "")
    # The user's file, so that tests may write the other one: bridges don't outlive their tests for long.
    own = tmp_path / ".config" / "scow" / "config.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[plugins.bridge]\nlinger = 1.0\n")
    engine = Scow(tmp_path / "root", tmp_path / "run", config, warmed)
    owner = machine.Owner(tmp_path, Paths(engine.root, engine.run_dir).instance)
    before = machine.snapshot(owner)
    try:
        yield engine
    finally:
        listed = engine.try_("ps", "-aq")
        if names := listed.stdout.decode().split():
            engine.try_("rm", "-f", *names)
        engine.stop_launcher()
    extra = machine.settled(before, owner, seconds=25)
    assert not extra, extra
    leftover = list((tmp_path / "run" / "containers").glob("*")) if (tmp_path / "run").exists() else []
    assert not leftover, leftover


def wait_port(port: int, host: str = "127.0.0.1", seconds: float = 10) -> None:
    """Until somebody answers at a TCP port."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host, port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def free_port() -> int:
    """A TCP port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", 0))
        return int(probe.getsockname()[1])
