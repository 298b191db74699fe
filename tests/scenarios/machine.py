"""What a machine looks like from outside: taken before and after a scenario, it must be the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "net/ipv4/conf/default/forwarding")


def snapshot(owner: Owner | None = None) -> dict[str, set[str]]:
    """Mounts, links, rules, cgroups, forwarding, loops and processes: an engine's, or without one the machine's."""
    owner = owner or Owner()
    return {
        "mounts": _mounts(owner),
        "links": {name for name in os.listdir("/sys/class/net") if owner.has_link(name)},
        "rules": {line for line in _rules() if owner.named(line)},
        "cgroups": {path for path in _cgroups() if owner.has_container(path)},
        "forwarding": {f"{name}={_read('/proc/sys/' + name)}" for name in SYSCTLS},
        "processes": _processes(owner),
        "loops": {
            name
            for name in os.listdir("/sys/block")
            if Path(f"/sys/block/{name}/loop").exists() and owner.below(_read(f"/sys/block/{name}/loop/backing_file"))
        },
    }


@dataclass(frozen=True)
class Owner:
    """Whose a thing is: an engine below a test's directory; without a directory, everything is meant.

    Tests run side by side, and others' things come and go. Bridges and tables bear the engine's instance, control
    groups and supervisors a container's identifier, mounts, loops and command lines a path.
    """

    directory: Path | None = None
    instance: str = ""

    def below(self, text: str) -> bool:
        # With the slash: test_x1 is not test_x10's.
        return self.directory is None or f"{self.directory}/" in f"{text}/".replace(" ", "/")

    def named(self, text: str) -> bool:
        return self.directory is None or f"scow-{self.instance}" in text

    def has_link(self, name: str) -> bool:
        """A bridge by its name, a port by the bridge that it is on."""
        try:
            master = os.path.basename(os.readlink(f"/sys/class/net/{name}/master"))
        except OSError:
            master = ""
        return self.named(name) or self.named(master)

    def has_container(self, path: str) -> bool:
        """Whether a control group bears the identifier of a container that this engine has, or has had."""
        if self.directory is None:
            return True
        name = os.path.basename(path)
        return len(name) >= 12 and any(known.startswith(name) for known in self.containers())

    def containers(self) -> set[str]:
        """All that its directories and its log of events know of: also what is removed."""
        if self.directory is None:
            return set()
        found = {path.name for path in self.directory.glob("*/containers/*")}
        for log in self.directory.glob("**/events.jsonl*"):
            found |= set(_IDENTIFIER.findall(_read(str(log))))
        return found


_IDENTIFIER = re.compile(r"[0-9a-f]{12,64}")


def settled(before: dict[str, set[str]], owner: Owner | None = None, seconds: float = 8) -> dict[str, set[str]]:
    """What is there now and wasn't before, once it has had a while to go."""
    deadline = time.monotonic() + seconds
    while True:
        now = snapshot(owner)
        extra = {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}
        if not extra or time.monotonic() > deadline:
            return extra
        time.sleep(0.1)


def _mounts(owner: Owner) -> set[str]:
    """Where they are; whose they are may also be said by the source or the options (overlay's layers)."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        line.split()[4] for line in lines if owner.below(line.replace(",", " ").replace("=", " ").replace(":", " "))
    }


def _rules() -> set[str]:
    if shutil.which("nft") is None:
        return set()
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    return {line for line in listed.splitlines() if "scow" in line}


def _cgroups() -> set[str]:
    """Scow's groups and what is in them. They come and go while we look: os.walk doesn't mind, glob does."""
    return {
        os.path.join(at, name)
        for at, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name[:4] == "scow" or "/scow" in at
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "?"


def _processes(owner: Owner) -> set[str]:
    """Launchers and supervisors of scow's, containers' processes, and what has the directory on its command line."""
    found = set()
    containers = owner.containers()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = Path(f"/proc/{entry}/comm").read_text().strip()
            groups = Path(f"/proc/{entry}/cgroup").read_text()
            root = os.readlink(f"/proc/{entry}/root")
        except OSError:
            continue
        if owner.directory is None:
            ours = name.startswith("scow:") or root != "/" or "/scow/" in groups or " -m scow." in line
        else:
            supervised = name.startswith("scow:") and any(each.startswith(name[5:]) for each in containers)
            inside = any(each in containers for each in groups.replace("\n", "/").split("/") if len(each) >= 12)
            ours = owner.below(line) or owner.below(root) or supervised or inside
        if ours:
            found.add(f"{name}: {line}")
    return found


def eventually(check: Callable[[], bool], seconds: float = 10, pause: float = 0.05) -> bool:
    """Whether a condition comes true in time."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
