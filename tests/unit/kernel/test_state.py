"""The database, the journal and the liveness lock: consistent whoever is killed."""

# ruff: noqa: PT012
from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scow.errors import Conflict, Corrupt, Exhausted, Exists, Internal, Invalid, NotFound, Unsupported
from scow.lifecycle import Happening
from scow.model.container import ContainerSpec, Status
from scow.model.digest import Digest
from scow.model.process import BindMount, Isolation, ProcessSpec, TmpfsMount
from scow.state import containers, images
from scow.state.database import MIGRATIONS, Database
from scow.state.journal import JournalFile, unreleased
from scow.state.liveness import is_owned, take
from scow.sys.mounts import mount, umount


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "state.db")
    yield opened
    opened.close()


def spec(number: int = 1, name: str = "web", **more: object) -> ContainerSpec:
    return ContainerSpec(
        id=f"{number:064x}", name=name, image="img", image_id="sha256:i", manifest="sha256:m", layers=(),
        storage="overlay", network="bridge", runtime="namespaces", process=ProcessSpec(("true",)),
        isolation=Isolation("h", mounts=(BindMount("/a", "/b"), TmpfsMount("/t", 5))), created=float(number),
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
def test_migrations_from_every_earlier_version(tmp_path: Path, version: int) -> None:
    path = tmp_path / "state.db"
    old = sqlite3.connect(path)
    for step in MIGRATIONS[:version]:
        old.executescript(step)
    old.execute(f"PRAGMA user_version={version}")
    old.close()
    database = Database(path)
    with database.read() as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    containers.insert(database, spec())
    database.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    newer = sqlite3.connect(path)
    newer.execute(f"PRAGMA user_version={len(MIGRATIONS) + 1}")
    newer.close()
    with pytest.raises(Unsupported, match="newer scow") as caught:
        Database(path)
    assert "--root" in str(caught.value.hint)


def test_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(Corrupt, match=r"state\.db"):
        Database(path)
    with pytest.raises(Internal):
        Database(tmp_path / "missing" / "state.db")


def _opener(path: str, number: int) -> None:
    database = Database(Path(path))
    for round_ in range(10):
        containers.insert(database, spec(number * 100 + round_ + 1, f"c{number}-{round_}"))
    os._exit(0)


def test_many_processes_open_and_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = str(tmp_path / "state.db")
    workers = [context.Process(target=_opener, args=(path, number)) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0] * 8
    database = Database(Path(path))
    assert len(containers.listing(database)) == 80
    database.close()


WRITER = """
import sys, time
from pathlib import Path
from scow.state.database import Database
database = Database(Path(sys.argv[1]))
with database.write() as connection:
    connection.execute("DELETE FROM containers")
    print("inside", flush=True)
    time.sleep(60)
"""


def test_kill_in_a_transaction(tmp_path: Path, database: Database) -> None:
    containers.insert(database, spec())
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "state.db"], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"inside\n"
        assert len(containers.listing(database)) == 1
        os.kill(writer.pid, signal.SIGKILL)
    assert containers.find(database, "web").spec == spec()
    containers.insert(database, spec(2, "other"))


def test_rollback(database: Database) -> None:
    with pytest.raises(KeyError), database.write() as connection:
        connection.execute("CREATE TABLE t (x)")
        raise KeyError
    with database.write() as connection:
        connection.execute("CREATE TABLE t (x)")


@pytest.mark.root
def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("tmpfs", str(disk), "tmpfs", 0, "size=1m")
    try:
        database = Database(disk / "state.db")
        containers.insert(database, spec())
        (disk / "ballast").write_bytes(b"")
        with pytest.raises(OSError, match="No space"):
            (disk / "ballast").write_bytes(bytes(2 << 20))
        with pytest.raises(Exhausted):
            for number in range(2, 2000):
                containers.insert(database, spec(number, f"c{number}"))
        (disk / "ballast").unlink()
        containers.insert(database, spec(9999, "after"))
        assert containers.find(database, "web").spec == spec()
        database.close()
    finally:
        umount(str(disk), detach=True)


def test_containers(database: Database) -> None:
    made = containers.insert(database, spec())
    assert containers.find(database, "web") == made
    assert containers.find(database, "/web") == made
    assert containers.find(database, made.spec.id) == made
    with pytest.raises(Exists, match="'web' is in use") as caught:
        containers.insert(database, spec(2))
    assert "scow rm web" in str(caught.value.hint)
    running = containers.change(database, made.spec.id, Happening.START, lambda state: replace(state, pid=7))
    assert (running.state.status, running.state.pid) == (Status.RUNNING, 7)
    with pytest.raises(Conflict):
        containers.change(database, made.spec.id, Happening.REMOVE)
    assert containers.find(database, "web") == running
    containers.edit_state(database, made.spec.id, lambda state: replace(state, oom_killed=True))
    assert containers.find(database, "web").state.oom_killed
    assert [c.spec.name for c in containers.listing(database, [Status.RUNNING])] == ["web"]
    assert containers.listing(database, [Status.EXITED]) == []
    assert containers.listing(database, []) == []
    containers.delete(database, made.spec.id)
    containers.delete(database, made.spec.id)
    containers.edit_state(database, made.spec.id, lambda state: state)
    with pytest.raises(NotFound):
        containers.find(database, "web")
    with pytest.raises(NotFound):
        containers.change(database, made.spec.id, Happening.START)


def test_container_prefixes(database: Database) -> None:
    one = replace(spec(), id="ab1" + "0" * 61, name="one")
    two = replace(spec(), id="ab2" + "0" * 61, name="two")
    ab = replace(spec(), id="f" * 64, name="ab")
    for each in (one, two, ab):
        containers.insert(database, each)
    assert containers.find(database, "ab1").spec.name == "one"
    assert containers.find(database, "ab").spec.name == "ab"
    with pytest.raises(Invalid, match="ambiguous"):
        containers.find(database, "a")
    for nothing in ("", "/", "ac", "g", "AB1", "a%", "ab_"):
        with pytest.raises(NotFound):
            containers.find(database, nothing)


def test_a_full_id_counts_more_than_a_name(database: Database) -> None:
    containers.insert(database, spec(1, "a"))
    containers.insert(database, spec(2, spec(1).id))
    assert containers.find(database, spec(1).id).spec.name == "a"


def image(text: bytes, config: bytes, pulled: float = 1.0) -> images.ImageRow:
    digest = Digest.of(text)
    return images.ImageRow(digest, Digest.of(config), digest, "m", 5, pulled)


def test_images(database: Database) -> None:
    old, new = image(b"old", b"c1"), image(b"new", b"c2", 2.0)
    name = "docker.io/library/nginx:latest"
    images.save_image(database, old, name, f"docker.io/library/nginx@{old.root}")
    images.save_image(database, old, name, f"docker.io/library/nginx@{old.root}")
    assert images.image_by_name(database, name) == old
    images.save_image(database, new, name, None)
    assert images.image_by_name(database, name) == new
    assert images.image_by_name(database, f"docker.io/library/nginx@{old.root}") == old
    assert images.image_by_name(database, "x") is None
    assert images.all_images(database) == [new, old]
    assert images.names_of(database) == {
        str(new.manifest): ([name], []), str(old.manifest): ([], [f"docker.io/library/nginx@{old.root}"])
    }  # fmt: skip
    for row in (old, new):
        assert images.image_by_id(database, row.config.hex) == row
        assert images.image_by_id(database, row.config.hex[:12]) == row
        assert images.image_by_id(database, row.manifest.hex) == row
    assert images.image_by_id(database, "0" * 20) is None
    with pytest.raises(Invalid, match="ambiguous"):
        images.image_by_id(database, "")


def test_images_by_other_algorithms(database: Database) -> None:
    digest = Digest.of(b"x", "sha512")
    row = images.ImageRow(digest, Digest.of(b"c"), digest, "m", 5, 1.0)
    images.save_image(database, row, "a.b/c:t", None)
    assert images.image_by_id(database, digest.hex) == row


def test_journal(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path)
    network, mounts = journal.bound("network", "bridge"), journal.bound("mount", "overlay")
    first, second = network.hold(link="veth1", index=3), mounts.hold(path="/x")
    third = network.hold(rule=1)
    mounts.release(second)
    journal.close()
    assert len({first, second, third}) == 3
    assert list(unreleased(tmp_path)) == [
        ("network", "bridge", {"rule": 1}),
        ("network", "bridge", {"link": "veth1", "index": 3}),
    ]


def test_journal_cut_anywhere(tmp_path: Path) -> None:
    journal = JournalFile(tmp_path)
    journal.bound("network", "bridge").hold(a=1)
    whole = (tmp_path / "journal").read_bytes()
    journal.bound("network", "bridge").hold(b=2)
    journal.close()
    longer = (tmp_path / "journal").read_bytes()
    for end in range(len(whole), len(longer) - 1):
        (tmp_path / "journal").write_bytes(longer[:end])
        assert list(unreleased(tmp_path)) == [("network", "bridge", {"a": 1})]
    (tmp_path / "journal").write_bytes(b'\xff\n[]\n3\n{"x":1}\n' + whole)
    assert list(unreleased(tmp_path)) == [("network", "bridge", {"a": 1})]
    (tmp_path / "journal").unlink()
    assert list(unreleased(tmp_path)) == []


def test_liveness(tmp_path: Path) -> None:
    rundir = tmp_path / "run"
    assert not is_owned(rundir)
    fd = take(rundir)
    assert fd is not None
    assert is_owned(rundir)
    assert take(rundir) is None
    os.close(fd)
    assert not is_owned(rundir)


def test_asking_looks_like_owning_to_nobody(tmp_path: Path) -> None:
    """Two who ask at the same moment must not see each other's lock."""
    lock = take(tmp_path)
    assert lock is not None
    os.close(lock)
    asks = [
        subprocess.Popen([sys.executable, "-c", ASKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [asker.communicate()[0] for asker in asks] == ["0\n", "0\n"]


ASKER = """
import sys
from pathlib import Path
from scow.state.liveness import is_owned
print(sum(is_owned(Path(sys.argv[1])) for _ in range(20000)))
"""

OWNER = """
import sys, time
from pathlib import Path
from scow.state.liveness import take
fd = take(Path(sys.argv[1]))
print("mine" if fd is not None else "taken", flush=True)
time.sleep(60)
"""


def test_kill_frees_it(tmp_path: Path) -> None:
    rundir = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", OWNER, rundir], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"mine\n"
        assert is_owned(rundir)
        assert take(rundir) is None
        os.kill(owner.pid, signal.SIGKILL)
    assert not is_owned(rundir)
    fd = take(rundir)
    assert fd is not None
    os.close(fd)


def test_the_directory_goes_between_open_and_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    rundir = tmp_path / "run"
    real, calls = fcntl.flock, []

    def flock(fd: int, how: int) -> None:
        calls.append(fd)
        if len(calls) == 1:
            shutil.rmtree(rundir)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    fd = take(rundir)
    assert fd is not None
    assert len(calls) == 2
    assert os.fstat(fd).st_ino == (rundir / "lock").stat().st_ino
    os.close(fd)


def test_a_row_that_an_earlier_release_wrote(database: Database) -> None:
    """It knows nothing of what is kept by now: which of the words are the entrypoint's."""
    made = containers.insert(database, spec(entry_words=1))
    with database.write() as connection:
        (text,) = connection.execute("SELECT spec FROM containers").fetchone()
        row = json.loads(text)
        del row["entry_words"]
        connection.execute("UPDATE containers SET spec=?", (json.dumps(row).encode(),))
    (read,) = containers.listing(database)
    assert made.spec.entrypoint == ("true",)
    assert (read.spec.entry_words, read.spec.entrypoint, read.spec.cmd) == (None, (), ("true",))
