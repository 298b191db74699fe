"""The engines under test, each with directories of its own, and the daemons that they need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}


@dataclass
class Engine:
    """A command line of Docker's kind. `mine` tells the engine's own processes by (name, command line)."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    #: What `pull` needs beside the name.
    pull_flags: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()

    def run(self, *arguments: str, **environment: str) -> None:
        """Run one command. Raises RuntimeError with what it said."""
        done = subprocess.run(
            [*self.command, *arguments],
            env={**os.environ, **self.environment, **environment},
            timeout=300,
            check=False,
            **QUIET,  # type: ignore[call-overload]
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name} {' '.join(arguments)}: {done.returncode}\n{done.stderr.decode()}")

    def timed(self, *arguments: str, **environment: str) -> float:
        """Milliseconds that one command takes."""
        began = time.perf_counter()
        self.run(*arguments, **environment)
        return (time.perf_counter() - began) * 1000

    def version(self) -> str:
        """What it says about itself."""
        # With its own directories: a launcher elsewhere would be taken for one of its processes, and outlive this.
        environment = {**os.environ, **self.environment}
        done = subprocess.run(
            [self.command[0], "--version"], env=environment, capture_output=True, text=True, check=False
        )
        words = done.stdout.split()
        return next((word.strip(",") for word in words if word[0].isdigit()), words[-1] if words else "?")

    def pull(self, reference: str) -> float:
        """Milliseconds of a pull into a store that hasn't the image."""
        self.run("rmi", "-f", reference)
        return self.timed("pull", *self.pull_flags, reference)

    def forget(self) -> None:
        """Whatever makes the next command a first one."""

    def pss(self) -> int:
        """Bytes of proportional memory of all its own processes, daemons included."""
        return sum(_pss(pid) for pid in _pids() if self._owns(pid))

    def _owns(self, pid: int) -> bool:
        with suppress(OSError):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            return any(name.startswith(mine) for mine in self.processes)
        return False


class Scow(Engine):
    """scow, whose processes are told by their command lines."""

    def forget(self) -> None:
        """End the launcher."""
        for pid in _pids():
            with suppress(OSError):
                if b"scow.launcher" in Path(f"/proc/{pid}/cmdline").read_bytes() and not _is_supervisor(pid):
                    os.kill(pid, 15)
        _until(lambda: not any(b"scow.launcher" in _cmdline(pid) for pid in _pids()), 10)

    def _owns(self, pid: int) -> bool:
        # What is forked from the launcher has its command line; a keeper has one of its own.
        return any(mine in _cmdline(pid) for mine in (b"scow.launcher", b"scow.supervisor", b"scow/keeper"))


def _is_supervisor(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().startswith("scow:")


def found(home: Path, wanted: list[str]) -> Iterator[Engine]:
    """The engines that are installed. The caller is in namespaces of its own, where all of them end."""
    scow = str(Path(sys.executable).with_name("scow"))
    places = {"SCOW_ROOT": str(home / "scow" / "root"), "SCOW_RUN": str(home / "scow" / "run")}
    yield Scow("scow", (scow,), places)
    if "docker" in wanted and shutil.which("dockerd") and (docker := _docker()):
        socket = f"unix://{home}/docker/docker.sock"
        yield Engine(
            "docker",
            (docker, "--host", socket),
            {"DOCKER_CONFIG": str(home / "docker" / "config")},
            processes=("dockerd", "containerd", "docker-proxy"),
        )
    if "podman" in wanted and shutil.which("podman"):
        storage = ("--root", str(home / "podman" / "root"), "--runroot", str(home / "podman" / "run"))
        plain = ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        if Path("/sys/fs/cgroup/unified").exists() and shutil.which("runc"):
            plain += ["--runtime", "runc"]  # crun refuses machines with both versions of control groups
        yield Engine(
            "podman",
            ("podman", *storage, *plain),
            pull_flags=("--tls-verify=false",),
            processes=("conmon", "podman", "catatonit"),
        )


def _docker() -> str | None:
    """Docker's own client: /usr/bin first, because elsewhere a stand-in may lie."""
    return shutil.which("docker", path="/usr/bin") or shutil.which("docker")


@contextmanager
def daemons(home: Path, engines: list[Engine]) -> Iterator[None]:
    """dockerd with its own directories, where docker takes part; ended by the handle it was started with."""
    if not any(engine.name == "docker" for engine in engines):
        yield
        return
    base = home / "docker"
    base.mkdir(parents=True)
    arguments = ["--data-root", base / "data", "--exec-root", base / "exec", "--pidfile", base / "pid"]
    with (base / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["dockerd", *map(str, arguments), "--host", f"unix://{base}/docker.sock"], stdout=log, stderr=log
        )
    try:
        if not _until((base / "docker.sock").exists, 60):
            raise RuntimeError(f"dockerd didn't come up:\n{(base / 'log').read_text()[-2000:]}")
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)


@contextmanager
def registry(home: Path) -> Iterator[str]:
    """Debian's docker-registry on loopback; gives host:port."""
    (home / "registry").mkdir(parents=True)
    config = home / "registry" / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\nhttp: {addr: '127.0.0.1:5000'}\n"
        f"storage: {{filesystem: {{rootdirectory: {home}/registry/data}}}}\n"
    )
    with (home / "registry" / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        if not _until(_answers, 20):
            raise RuntimeError((home / "registry" / "log").read_text())
        yield "127.0.0.1:5000"
    finally:
        server.terminate()
        server.wait(20)


def _answers() -> bool:
    import socket

    with suppress(OSError), socket.create_connection(("127.0.0.1", 5000), timeout=1):
        return True
    return False


def _until(happened: object, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():  # type: ignore[operator]
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _cmdline(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def _pss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
