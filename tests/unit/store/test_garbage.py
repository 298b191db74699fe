"""Removal: rows first, files later; nothing that anybody needs, nothing while somebody brings things in."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest

from scow.engine import store
from scow.engine.collecting import collect
from scow.engine.core import Core
from scow.engine.garbage import bringing_in, sweep
from scow.engine.usage import disk_usage
from scow.errors import Conflict, Invalid, NotFound
from scow.model.container import ContainerSpec
from scow.model.digest import Digest
from scow.model.process import Isolation, ProcessSpec
from scow.state import containers, images
from scow.sys.later import unlink_later

from .conftest import add_image, make_core


def make_container(core: Core, row: images.ImageRow, name: str = "box") -> None:
    spec = ContainerSpec(
        id=name.encode().hex().ljust(64, "0"),
        name=name,
        image="x",
        image_id=str(row.config),
        manifest=str(row.manifest),
        layers=(),
        storage="s",
        network="n",
        runtime="r",
        process=ProcessSpec(args=("x",)),
        isolation=Isolation(hostname="h"),
        created=1.0,
    )
    containers.insert(core.database, spec)


def test_shared_blobs_stay(core: Core) -> None:
    add_image(core, "docker.io/library/one:latest", b"shared", b"own")
    two = add_image(core, "docker.io/library/two:latest", b"shared", b"other")
    removal = store.remove_image(core, "one")
    assert removal.untagged == ("one:latest",)
    blobs = core.content.blobs()
    assert {Digest.of(b"shared"), Digest.of(b"other"), two.manifest, two.config} == blobs


def test_names_are_pointers(core: Core) -> None:
    row = add_image(core, "docker.io/library/one:latest", b"a")
    store.tag(core, "one", "two:3")
    store.tag(core, row.config.short, "three")
    assert store.remove_image(core, "two:3").untagged == ("two:3",)
    with pytest.raises(Conflict, match="several repositories"):
        store.remove_image(core, row.config.short)
    assert core.content.blobs()
    removal = store.remove_image(core, row.config.short, force=True)
    assert set(removal.untagged) == {"one:latest", "three:latest"}
    assert removal.deleted == (str(row.config),)
    assert not core.content.blobs()
    for name in ("one", row.config.short):
        with pytest.raises(NotFound):
            store.remove_image(core, name)
    for target in ("a@sha256:" + "0" * 64, "UPPER"):
        with pytest.raises((Invalid, NotFound)):
            store.tag(core, "one", target)


def test_a_killed_removal_is_finished_by_the_next(core: Core) -> None:
    row = add_image(core, "docker.io/library/one:latest", b"a")
    add_image(core, "docker.io/library/two:latest", b"b")
    removal = store.remove_image(core, "one", prune=False)  # killed before its sweep
    assert not removal.bytes
    assert core.content.blob(row.manifest).exists()
    again = make_core(core.paths)
    store.remove_image(again, "two")
    assert not again.content.blobs()
    assert images.garbage(again.database) == []
    again.database.close()


def test_blobs_of_an_interrupted_pull_survive_a_removal(core: Core) -> None:
    add_image(core, "docker.io/library/one:latest", b"a")
    row = add_image(core, None, b"arrived")
    images.forget(core.database, (), [row.manifest], ())
    store.remove_image(core, "one")
    assert Digest.of(b"arrived") in core.content.blobs()
    assert disk_usage(core).leftovers == 3
    swept = sweep(core, everything=True)
    assert len(swept.blobs) == 3
    assert not core.content.blobs()


async def test_nothing_is_swept_while_somebody_brings_things_in(core: Core) -> None:
    add_image(core, "docker.io/library/one:latest", b"a", b"b")
    other = make_core(core.paths)
    async with bringing_in(core):
        removal = store.remove_image(other, "one")
        assert removal.postponed
        assert len(other.content.blobs()) == 4
        # A pull that found a blob in the store relies on it.
        row = add_image(core, "docker.io/library/two:latest", b"a")
    assert core.content.blobs() == {Digest.of(b"a"), row.config, row.manifest}
    other.database.close()


def test_containers_keep_their_image(core: Core) -> None:
    row = add_image(core, "docker.io/library/one:latest", b"a")
    make_container(core, row)
    with pytest.raises(Conflict, match=r"container box \("):
        store.remove_image(core, "one")
    store.prune_images(core, everything=True)
    done = collect(core, 0)
    assert [(each.action, each.reason) for each in done.decisions] == [("keep", "container box uses it")]
    store.remove_image(core, "one", force=True)
    assert len(core.content.blobs()) == 3
    containers.delete(core.database, containers.listing(core.database)[0].spec.id)
    sweep(core, everything=True)
    assert not core.content.blobs()


def test_a_damaged_image_stops_sweeps_but_not_its_own_removal(core: Core) -> None:
    row = add_image(core, "docker.io/library/bad:latest", b"a")
    add_image(core, "docker.io/library/good:latest", b"b")
    core.content.blob(row.config).write_bytes(b"{")
    assert store.remove_image(core, "good").postponed
    assert Digest.of(b"b") in core.content.blobs()
    store.remove_image(core, "bad")
    assert not core.content.blobs()


def test_gc_takes_the_longest_unused_first(core: Core) -> None:
    rows = [add_image(core, f"docker.io/library/i{number}:latest", bytes([number]) * 100_000) for number in range(3)]
    with core.database.write() as connection:
        for moment, row in zip((30, 10, 20), rows, strict=True):
            connection.execute("UPDATE images SET last_used=? WHERE manifest=?", (moment, str(row.manifest)))
    whole = disk_usage(core).images_bytes
    plan = collect(core, whole - 1, dry_run=True)
    assert [(each.name.split("/")[-1], each.action) for each in plan.decisions] == [
        ("i1:latest", "remove"),
        ("i2:latest", "keep"),
        ("i0:latest", "keep"),
    ]
    done = collect(core, whole - 1)
    assert done.decisions == plan.decisions
    assert done.after == plan.after == disk_usage(core).images_bytes
    assert {row.manifest for row in images.all_images(core.database)} == {rows[0].manifest, rows[2].manifest}


def test_a_removed_file_is_gone_at_once_and_its_blocks_soon(tmp_path: Path) -> None:
    """Names go first, all of them; the descriptors that keep the blocks are closed a moment later."""
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"x" * 4096)
        unlink_later(path)
        assert not path.exists()
    assert len(held(tmp_path)) == 3
    deadline = time.monotonic() + 5
    while held(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not held(tmp_path)
    with pytest.raises(FileNotFoundError):
        unlink_later(tmp_path / "a")
    (tmp_path / "target").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    unlink_later(tmp_path / "link")
    assert os.listdir(tmp_path) == ["target"]


def held(directory: Path) -> list[str]:
    """Files of a directory that this process has open."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in found if path.startswith(f"{directory}/")]
