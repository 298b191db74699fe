"""Docker and scow on one machine: Debian's dockerd in a network and mount namespace that the test makes.

The outside is a neighbour behind a veth; nothing leaves these namespaces.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import Scow, require
from .images import busybox_tree
from .machine import eventually

HOST, OUTSIDE = "192.0.2.1", "192.0.2.2"

#: Serves on the neighbour: HTTP on port 80, and UDP on port 53.
_NEIGHBOUR = """
import os, socket, threading
def pages():
    with socket.create_server(("", 80)) as server:
        while True:
            client = server.accept()[0]
            client.recv(1000)
            client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nfrom the outside\\n")
            client.close()
def names():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("", 53))
        print("ready", flush=True)
        while True:
            asked, client = server.recvfrom(512)
            server.sendto(asked + b", from the outside", client)
threading.Thread(target=pages, daemon=True).start()
names()
"""
#: Asks the neighbour by UDP.
_ASK_UDP = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(2)
    client.sendto(b"a name", (sys.argv[1], 53))
    print(client.recv(100).decode())
"""


@dataclass
class Machine:
    """The namespaces of the machine (its keeper's) and of its neighbour, and what Docker has of its own."""

    here: int
    neighbour: int
    directory: Path
    daemon: subprocess.Popen[bytes] | None = None

    def command(self, *words: str, neighbour: bool = False) -> list[str]:
        whose = self.neighbour if neighbour else self.here
        return ["nsenter", "-t", str(whose), "-n", "-m", f"--wd={self.directory}", *words]

    def try_(self, *words: str, neighbour: bool = False, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        command = self.command(*words, neighbour=neighbour)
        return subprocess.run(
            command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=seconds, check=False
        )

    def __call__(self, *words: str, neighbour: bool = False) -> str:
        done = self.try_(*words, neighbour=neighbour)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def docker(self, *words: str) -> str:
        return self("docker", "-H", f"unix://{self.directory}/docker.sock", *words)

    def start_docker(self) -> None:
        place = self.directory
        flags = {
            "config-file": place / "daemon.json",
            "data-root": place / "data",
            "exec-root": place / "exec",
            "pidfile": place / "docker.pid",
            "host": f"unix://{place}/docker.sock",
            "storage-driver": "vfs",
            "cgroup-parent": f"/{self.group}",
            "shutdown-timeout": 1,
        }
        command = self.command("dockerd", *(f"--{name}={value}" for name, value in flags.items()))
        with (place / "log").open("ab") as log:
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        assert eventually(lambda: self._answers()), (place / "log").read_text()[-2000:]

    def _answers(self) -> bool:
        return self.try_("docker", "-H", f"unix://{self.directory}/docker.sock", "version").returncode == 0

    def stop_docker(self) -> None:
        if self.daemon is not None:
            self.daemon.send_signal(signal.SIGTERM)
            self.daemon.wait(30)
            self.daemon = None

    @property
    def group(self) -> str:
        """The parent of the control groups of Docker's containers."""
        return f"beside-{self.here}"

    def rules(self) -> list[str]:
        """`iptables -S`, which must not stumble over anything."""
        said = self("iptables", "-S")
        assert "incompatible" not in said
        return said.splitlines()

    def page(self, url: str, *, neighbour: bool = False) -> str:
        """What is at an address, or "" when nobody answers within a second."""
        code = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=1).read().decode(), end='')"
        done = self.try_(sys.executable, "-I", "-S", "-c", code, url, neighbour=neighbour)
        return done.stdout


@contextlib.contextmanager
def _namespaces() -> Iterator[int]:
    """A process that keeps a network and a mount namespace; gives its number."""
    command = ["unshare", "-n", "-m", "--propagation", "private", "sh", "-c", "echo; exec sleep 1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        keeper.stdout.readline()
        try:
            yield keeper.pid
        finally:
            keeper.kill()


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with Docker running, and its neighbour."""
    require("dockerd", "docker", "iptables", "nsenter", "unshare", "ip")
    directory = tmp_path_factory.mktemp("docker")
    with _namespaces() as here, _namespaces() as there:
        machine = Machine(here, there, directory)
        _cable(machine)
        (directory / "daemon.json").write_text("{}")
        # Docker leaves a key there.
        machine("sh", "-c", "test ! -d /etc/docker || mount -t tmpfs none /etc/docker")
        (directory / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n")
        machine("mount", "--bind", str(directory / "resolv.conf"), os.path.realpath("/etc/resolv.conf"))
        try:
            machine.start_docker()
            yield machine
        finally:
            machine.stop_docker()
            for group in Path("/sys/fs/cgroup").glob(f"**/{machine.group}"):
                group.rmdir()


def _cable(machine: Machine) -> None:
    machine("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", str(machine.neighbour))
    for neighbour, device, address in ((False, "uplink", HOST), (True, "eth0", OUTSIDE)):
        machine("ip", "link", "set", "lo", "up", neighbour=neighbour)
        machine("ip", "addr", "add", f"{address}/24", "dev", device, neighbour=neighbour)
        machine("ip", "link", "set", device, "up", neighbour=neighbour)
    machine("ip", "route", "add", "default", "via", OUTSIDE)
    # A neighbour who knows the way to every container.
    machine("ip", "route", "add", "default", "via", HOST, neighbour=True)


@pytest.fixture
def served(machine: Machine) -> Iterator[None]:
    """The neighbour's servers."""
    command = machine.command(sys.executable, "-I", "-S", "-c", _NEIGHBOUR, neighbour=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield
        server.kill()


@dataclass
class Inside(Scow):
    """scow's commands within a machine's namespaces."""

    machine: Machine | None = None

    def command(self, *args: str) -> list[str]:
        assert self.machine is not None
        return self.machine.command(*super().command(*args))


@pytest.fixture
def inside(pulled: Scow, machine: Machine) -> Iterator[Inside]:
    """An engine that has an image, in the machine that has Docker."""
    pulled.stop_launcher()  # it is in the namespaces that it was started from
    parts = {name: getattr(pulled, name) for name in ("root", "run_dir", "config", "warm", "storage", "env")}
    scow = Inside(**parts, machine=machine)
    yield scow
    scow("rm", "-f", *names) if (names := scow("ps", "-aq").split()) else None
    scow.stop_launcher()


#: Debian's static wget dies in glibc's resolver.
_GET = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {} {} | grep '[eo]'"
_ASK = _GET.format(OUTSIDE, 80)


@pytest.mark.parametrize("launcher", [True], ids=["warm"], indirect=True)
def test_beside_docker(inside: Inside, machine: Machine, served: None, tmp_path: Path) -> None:
    tree = busybox_tree(tmp_path / "box")
    subprocess.run(["tar", "-C", str(tree), "-cf", str(tmp_path / "box.tar"), "."], check=True)
    machine.docker("import", str(tmp_path / "box.tar"), "box")
    before = machine.rules()
    assert "-P FORWARD DROP" in before
    _their_containers(machine)

    # Out, also in a build, and not a word about it.
    done = inside.try_("run", "--rm", "busybox", "sh", "-c", _ASK)
    assert (done.returncode, done.stderr) == (0, b""), done
    assert b"from the outside" in done.stdout
    (tmp_path / "context").mkdir()
    (tmp_path / "context" / "Dockerfile").write_text(f"FROM busybox\nRUN {_ASK}\n")
    built = inside.try_("build", "--progress", "plain", "--pull=false", str(tmp_path / "context"))
    assert built.returncode == 0, built.stderr.decode()
    assert b"[Warning]" not in built.stderr

    # In by what is published, and among each other.
    inside("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "httpd", "-f", "-p", "80", "-h", "/www")
    address = inside("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").strip()
    assert eventually(lambda: machine.page(f"http://{HOST}:8080/", neighbour=True) == "hello from busybox\n")
    process = inside("inspect", "-f", "{{.State.Pid}}", "web").strip()
    udp = ("nsenter", "-t", process, "-n", sys.executable, "-I", "-S", "-c", _ASK_UDP, OUTSIDE)
    assert machine(*udp) == "a name, from the outside\n"
    assert machine.page("http://127.0.0.1:8080/") == "hello from busybox\n"
    assert machine.page(f"http://{address}/", neighbour=True) == ""
    assert machine.page(f"http://{HOST}:80/", neighbour=True) == ""
    _fetches(inside, address, 80)
    _fetches(inside, HOST, 8080)

    _strangers(inside, machine, address)
    _restarted(inside, machine)
    inside("rm", "-f", "web")
    machine.docker("rm", "-f", *machine.docker("ps", "-aq").split())
    machine.docker("network", "rm", "other")
    assert eventually(lambda: machine.rules() == before, seconds=15), machine.rules()
    assert "scow" not in machine("nft", "list", "ruleset")
    _told_when_told_not_to(inside, machine, tmp_path)


def _fetches(scow: Scow, address: str, port: int) -> None:
    assert "hello" in scow("run", "--rm", "busybox", "sh", "-c", _GET.format(address, port))


def _their_containers(machine: Machine) -> None:
    """Docker's: `theirs` publishes port 80 and has something on 81, too; `apart` is on another network."""
    machine.docker("network", "create", "other")
    command = "httpd -p 81 -h /www; exec httpd -f -p 80 -h /www"
    machine.docker(
        "run", "-d", "--stop-timeout", "0", "--name", "theirs", "-p", "8181:80", "box", "/bin/sh", "-c", command
    )
    machine.docker(
        "run", "-d", "--stop-timeout", "0", "--name", "apart", "--network", "other", "box", "/bin/sleep", "1000"
    )
    assert eventually(lambda: "hello" in machine.page(f"http://{HOST}:8181/", neighbour=True))


def _theirs(machine: Machine) -> str:
    return machine.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "theirs").strip()


def _strangers(inside: Inside, machine: Machine, address: str) -> None:
    """Docker's containers work as before, are isolated as before, and reach no port of scow's that isn't published."""
    theirs = _theirs(machine)
    _fetches(inside, HOST, 8181)
    assert "hello" in machine.page(f"http://{HOST}:8181/", neighbour=True)
    assert "outside" in machine.docker("exec", "theirs", "sh", "-c", _ASK)
    assert "hello" in machine.docker("exec", "theirs", "sh", "-c", _GET.format(HOST, 8080))
    for port in (80, 81):
        assert inside.try_("run", "--rm", "busybox", "sh", "-c", _GET.format(theirs, port)).returncode != 0
    assert machine.page(f"http://{theirs}:81/", neighbour=True) == ""
    for whose, place in (("apart", theirs), ("theirs", address)):
        socket_ = f"unix://{machine.directory}/docker.sock"
        said = machine.try_("docker", "-H", socket_, "exec", whose, "sh", "-c", _GET.format(place, 80))
        assert said.returncode != 0, (whose, said.stdout)


def _restarted(inside: Inside, machine: Machine) -> None:
    """Docker restarted leaves our rules alone; flushed by somebody, they are back with the next container."""
    machine.stop_docker()
    machine.start_docker()
    ours = [line for line in machine.rules() if '"scow: ' in line]
    assert len(ours) == 3
    assert "outside" in inside("exec", "web", "sh", "-c", _ASK)
    machine("iptables", "-F", "FORWARD")
    machine.stop_docker()
    machine.start_docker()
    assert inside.try_("exec", "web", "sh", "-c", _ASK).returncode != 0
    inside("run", "--rm", "busybox", "sh", "-c", _ASK)
    assert "outside" in inside("exec", "web", "sh", "-c", _ASK)
    assert machine.page(f"http://{HOST}:8080/", neighbour=True) == "hello from busybox\n"


def _told_when_told_not_to(inside: Inside, machine: Machine, tmp_path: Path) -> None:
    """With the setting that leaves Docker's rules alone, run, build and info say so at once."""
    with inside.config.open("a") as file:
        file.write('\n[plugins.bridge]\nfirewall = "report"\nlinger = 1.0\n')
    said = (
        b"packets from containers to the outside are dropped by the policy of chain FORWARD in table ip filter (Docker)"
    )
    began = time.monotonic()
    for command in (("run", "--rm", "busybox", "true"), ("info",), ("build", "--no-cache", str(tmp_path / "context"))):
        done = inside.try_(*command)
        assert said in done.stderr, (command, done.stderr)
        assert b'plugins.bridge.firewall = "open"' in done.stderr
    assert time.monotonic() - began < 15
    assert not [line for line in machine.rules() if "scow" in line]
