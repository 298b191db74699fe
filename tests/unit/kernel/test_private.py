"""Directories that only their owner may read, fill or exchange."""

from __future__ import annotations

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from scow import warm
from scow.content.store import ContentStore
from scow.errors import Denied
from scow.paths import Paths
from scow.state.buildcache import BuildCache
from scow.state.database import Database
from scow.sys.private import make_private

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
OTHER = 12345


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
def test_made_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    place = Paths(tmp_path / "a" / "root", tmp_path / "b" / "run")
    before = os.umask(umask)
    try:
        if umask == 0o777:
            (tmp_path / "a").mkdir()
            (tmp_path / "a").chmod(0o755)
        place.make()
        ContentStore(place.content).prepare()
        Database(place.database).close()
        BuildCache(place.build_cache).close()
        warm.make_directory(str(tmp_path / "c" / "run"))
    finally:
        os.umask(before)
    for path in (place.root, place.run, tmp_path / "c" / "run"):
        assert mode(path) & 0o077 == 0
    for path in [*place.root.rglob("*"), *place.run.rglob("*")]:
        assert mode(path) & 0o077 == 0, path
    assert mode(tmp_path / "a") & 0o022 == mode(tmp_path / "c") & 0o022 == 0


def test_one_that_is_ours_is_tightened(tmp_path: Path) -> None:
    place = Paths(tmp_path / "root", tmp_path / "run")
    place.root.mkdir()
    place.root.chmod(0o755)
    place.run.mkdir()
    place.run.chmod(0o777)  # empty: nobody has put anything there
    Database(place.database).close()
    place.database.chmod(0o644)
    place.make()
    assert mode(place.root) == mode(place.run) == 0o700
    with_journal = sqlite3.connect(place.database)
    Database(place.database).close()
    with_journal.close()
    assert mode(place.database) == 0o600


def test_what_is_not_scows_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir(mode=0o755)
    (tmp_path / "etc" / "passwd").touch()
    with pytest.raises(Denied, match="mode 0755 and isn't empty"):
        make_private(tmp_path / "etc", frozenset({"state.db"}))
    assert mode(tmp_path / "etc") == 0o755


def test_what_others_could_fill_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    (root / "state.db").touch()
    with pytest.raises(Denied, match="mode 0777"):
        make_private(root, frozenset({"state.db"}))


def test_what_others_could_exchange_is_refused(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o775)
    with pytest.raises(Denied, match="where others may write"):
        make_private(parent / "root")
    assert not (parent / "root").exists()
    parent.chmod(0o755)
    os.chown(parent, OTHER, -1)
    with pytest.raises(Denied, match=f"belongs to user {OTHER}"):
        make_private(parent / "root")


def test_in_tmp_only_what_we_made(tmp_path: Path) -> None:
    sticky = tmp_path / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    make_private(sticky / "ours")
    (sticky / "theirs").mkdir(mode=0o700)
    os.chown(sticky / "theirs", OTHER, -1)
    with pytest.raises(Denied, match=f"belongs to user {OTHER}"):
        make_private(sticky / "theirs")
    (sticky / "link").symlink_to(sticky / "ours")
    make_private(sticky / "link")  # root's own link, in a place where nobody can exchange it
    os.lchown(sticky / "link", OTHER, -1)
    with pytest.raises(Denied, match=f"a link of user {OTHER}"):
        make_private(sticky / "link")
    (sticky / "loop").symlink_to("loop")
    with pytest.raises(Denied, match="leads through"):
        make_private(sticky / "loop")


def test_several_at_once_make_the_same_ones(tmp_path: Path) -> None:
    """As commands do that start together where nothing is yet."""
    barrier = Barrier(4)

    def make(path: Path) -> None:
        barrier.wait()
        make_private(path)

    with ThreadPoolExecutor(4) as pool:
        for number in range(200):
            path = tmp_path / str(number) / "above" / "root"
            list(pool.map(make, [path] * 4))
            assert mode(path) == 0o700
