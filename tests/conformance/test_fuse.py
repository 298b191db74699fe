"""fuse-overlayfs as a process: it lives exactly as long as its mount, and its failures are the container's only."""

# ruff: noqa: ASYNC220, ASYNC221, ASYNC240 - short-lived children and small local files

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scow.api import MountRequest, PluginContext, Unsupported
from scow.testing.layers import archive, contents, directory, file, whiteout
from scow.testing.storage import Journal, Storage
from scow_plugins.fuse import Plugin

pytestmark = pytest.mark.root


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    # What the program splits its options at, and what its parser takes for an escape.
    made = Storage("scow_plugins.fuse:Plugin", "fuse", tmp_path / "a,b c\\d e")
    unavailable = made.plugin.probe()
    if unavailable is not None:
        pytest.skip(unavailable.reason)
    yield made
    assert _eventually(lambda: _serving(made) == []), "fuse-overlayfs is still there"


def _serving(storage: Storage) -> list[int]:
    """The programs that serve something of this test's: they have its layers open."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text().startswith("fuse-overlay"):
                links = [os.readlink(link) for link in (entry / "fd").iterdir()]
                found += [int(entry.name)] if any(str(storage.base) in link for link in links) else []
        except OSError:
            continue
    return found


def _eventually(check: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


LAYERS = (archive(directory("d"), file("d/a"), file("d/b")), archive(whiteout("d/b"), file("d/c", b"c")))


async def test_one_process_for_one_mount(storage: Storage) -> None:
    snapshots = await storage.unpack(*LAYERS)
    assert _serving(storage) == []
    async with storage.mounted(snapshots) as root:
        (pid,) = _serving(storage)
        assert contents(root) == {"d": "directory", "d/a": b"", "d/c": b"c"}
        (held,) = storage.journal.held.values()
        assert f"SCOW_MOUNT={held['mount']}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        assert "fuse" not in Path("/proc/self/mountinfo").read_text().replace("/sys/fs/fuse", "")
    assert _serving(storage) == []


async def test_it_dies_first(storage: Storage) -> None:
    """Nobody waits for an answer that never comes, leaving neither hangs nor fails, and the next start works."""
    snapshots = await storage.unpack(*LAYERS)
    async with storage.mounted(snapshots) as root:
        (root / "kept").write_bytes(b"k")
        (pid,) = _serving(storage)
        os.kill(pid, signal.SIGKILL)
        assert _eventually(lambda: _serving(storage) == [])
        with pytest.raises(OSError) as caught:
            (root / "lost").write_bytes(b"l")
        assert caught.value.errno == errno.ENOTCONN
    async with storage.mounted(snapshots) as root:
        assert (root / "kept").read_bytes() == b"k"


async def test_reclaim_ends_one_that_stays(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody still holds the mount that a dead supervisor made: the program is killed, and others aren't."""
    monkeypatch.setattr("scow_plugins.fuse._reclaim._PATIENCE", 0.2)
    snapshots = await storage.unpack(*LAYERS)
    async with storage.mounted(snapshots, "bystander") as bystander:
        scratch = storage.base / "scratch" / "stays"
        scratch.mkdir()
        journal = Journal()
        # In a process that ends without leaving the mount; we hold a copy of it.
        held = storage.plugin.mount(MountRequest("fuse", "stays", snapshots, scratch, journal))
        rootfs = await held.__aenter__()
        copy = os.open(f"/proc/self/fd/{rootfs.fd}/.", os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert len(_serving(storage)) == 2
            (handle,) = journal.held.values()
            storage.plugin.reclaim(handle)
            storage.plugin.reclaim(handle)
            with pytest.raises(OSError):
                os.listdir(copy)
        finally:
            os.close(copy)
            await held.__aexit__(None, None, None)
        assert (bystander / "d/c").read_bytes() == b"c"


async def test_a_process_that_unpacks_is_killed(storage: Storage) -> None:
    """The merged view that it looked at goes with it."""
    await storage.unpack(*LAYERS)
    code = (
        "import sys, os\n"
        "from pathlib import Path\n"
        "from scow.api import Digest, Snapshot\n"
        "from scow_plugins.fuse._view import lower_tree\n"
        "layers = [Snapshot('fuse', Digest.of(p.encode()), Path(p)) for p in sys.argv[1:]]\n"
        "tree = lower_tree(layers, 'fuse-overlayfs')\n"
        "print(os.path.exists(f'/proc/self/fd/{tree.fd}/d/c'), flush=True)\n"
        "sys.stdin.read()\n"
    )
    paths = [str(storage.plugin.find(chain).path) for chain in storage.plugin.snapshots()]
    with subprocess.Popen(
        [sys.executable, "-c", code, *paths], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "True\n"
            assert len(_serving(storage)) == 1
        finally:
            child.kill()
    assert _eventually(lambda: _serving(storage) == [])


async def test_what_it_says_when_it_cannot(storage: Storage, tmp_path: Path) -> None:
    """No program, or one that ends at once: the error says so, and nothing stays."""
    plugin = Plugin(PluginContext("fuse", storage.base / "state", tmp_path / "run", {"program": "no-such-program"}))
    answer = plugin.probe()
    assert answer is not None
    assert answer.reason == "there is no program no-such-program; install fuse-overlayfs"
    colon = Storage("scow_plugins.fuse:Plugin", "fuse", tmp_path / "a:b")
    with pytest.raises(Unsupported, match="path with a colon"):
        async with colon.mounted(await colon.unpack(*LAYERS)):
            pass
    snapshots = await storage.unpack(*LAYERS)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho fuse-overlayfs: it is Monday >&2\nexit 1\n")
    failing.chmod(0o755)
    for program, words in (("no-such-program", "there is no program"), (str(failing), "doesn't start: it is Monday")):
        plugin = Plugin(PluginContext("fuse", storage.base / "state", tmp_path / "run", {"program": program}))
        journal = Journal()
        held = plugin.mount(MountRequest("fuse", "c", snapshots, scratch, journal))
        assert held is not None
        with pytest.raises(Unsupported, match=words):
            async with held:
                pass
        assert journal.held == {}
    problem = Plugin(PluginContext("fuse", tmp_path / "other", tmp_path / "run", {"program": str(failing)})).probe()
    assert problem is not None
    assert "it is Monday" in problem.reason


async def test_layers_of_others_are_refused(storage: Storage, tmp_path: Path) -> None:
    from scow.api import Digest, Snapshot

    host = Snapshot("host", Digest.of(b"host"), Path("/"))
    with pytest.raises(Unsupported, match="host: can't be had through fuse-overlayfs"):
        async with storage.mounted((host,)):
            pass
    with pytest.raises(Unsupported, match="can't be had through"):
        await storage.run(storage.request(LAYERS[0], (host,)))
    (mine,) = await storage.unpack(LAYERS[0])
    elsewhere = tmp_path / "layers" / "x" / "fs"
    shutil.copytree(mine.path, elsewhere)
    with pytest.raises(Unsupported, match="none of fuse-overlayfs' own"):
        async with storage.mounted((mine, Snapshot("other", Digest.of(b"x"), elsewhere))):
            pass


async def test_the_kernel_checks_as_everywhere(storage: Storage) -> None:
    """Others' files are closed to others; a file that somebody else writes loses its set-user-ID bit."""
    layer = archive(
        directory("open", 0o777), file("open/suid", b"x", 0o4777), file("secret", b"s", 0o600), directory("shut", 0o700)
    )
    async with storage.mounted(await storage.unpack(layer)) as root:
        script = "import os, sys\nos.setgroups([]); os.setgid(1000); os.setuid(1000)\nos.chdir(sys.argv[1])\n" + (
            "def refused(f, *a):\n    try: f(*a)\n    except PermissionError: return True\n"
            "assert refused(open, 'secret') and refused(os.listdir, 'shut') and refused(os.mkdir, 'no')\n"
            "open('open/suid', 'r+').write('y')\n"
            "open('open/mine', 'w').write('m')\n"
        )
        fd = os.open(root, os.O_RDONLY)
        try:
            subprocess.run([sys.executable, "-c", script, f"/proc/self/fd/{fd}"], check=True, pass_fds=(fd,))
        finally:
            os.close(fd)
        assert (root / "open/suid").stat().st_mode & 0o7777 == 0o777
        assert (root / "open/mine").stat().st_uid == 1000
