"""What a machine looks like from outside: taken before and after a scenario, it must be the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SYSCTLS = ("net/ipv4/ip_forward", "net/ipv4/conf/all/route_localnet", "net/ipv4/conf/default/forwarding")


def snapshot(*directories: Path) -> dict[str, set[str]]:
    """Mounts, links, rules, cgroups, forwarding, and the processes that work below the directories."""
    return {
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "links": set(os.listdir("/sys/class/net")),
        "rules": _rules(),
        "cgroups": _cgroups(),
        "forwarding": {f"{name}={_read('/proc/sys/' + name)}" for name in SYSCTLS},
        "processes": _processes(directories),
        "loops": {name for name in os.listdir("/sys/block") if Path(f"/sys/block/{name}/loop").exists()},
    }


def settled(before: dict[str, set[str]], *directories: Path, seconds: float = 8) -> dict[str, set[str]]:
    """What is there now and wasn't before, once it has had a while to go."""
    deadline = time.monotonic() + seconds
    while True:
        now = snapshot(*directories)
        extra = {kind: now[kind] - before[kind] for kind in now if now[kind] - before[kind]}
        if not extra or time.monotonic() > deadline:
            return extra
        time.sleep(0.1)


def _rules() -> set[str]:
    if shutil.which("nft") is None:
        return set()
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    return {line for line in listed.splitlines() if "scow" in line}


def _cgroups() -> set[str]:
    """Groups come and go while we look: os.walk doesn't mind, glob does."""
    return {
        os.path.join(at, name) for at, names, _ in os.walk("/sys/fs/cgroup") for name in names if name[:4] == "scow"
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "?"


def _processes(directories: tuple[Path, ...]) -> set[str]:
    """Processes that have one of the directories on their command line, and supervisors of scow's."""
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            name = Path(f"/proc/{entry}/comm").read_text().strip()
            root = os.readlink(f"/proc/{entry}/root")
        except OSError:
            continue
        if any(str(directory) in line for directory in directories) or name.startswith("scow:") or root != "/":
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
