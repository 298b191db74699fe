"""index.json follows the names, whoever changes them at once; and what lists show comes without opening images."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from scow.engine import images, store
from scow.engine.core import Core
from scow.engine.garbage import sweep
from scow.errors import NotFound
from scow.model.descriptor import OCI_INDEX
from scow.model.digest import Digest
from scow.state import images as rows

from .conftest import add_image, put

NAME = "org.opencontainers.image.ref.name"


def listed(core: Core) -> dict[str, dict]:
    entries = json.loads((core.content.path / "index.json").read_text())["manifests"]
    return {entry["annotations"][NAME]: entry for entry in entries}


TAGGER = """
import sys
from pathlib import Path
from tests.unit.store.conftest import make_core
from scow.engine import store
from scow.paths import Paths
core = make_core(Paths(Path(sys.argv[1]), Path(sys.argv[2])))
for number in range(20):
    store.tag(core, sys.argv[3], f"of{sys.argv[4]}:{number}")
"""


def test_commands_at_once_lose_no_name(core: Core) -> None:
    row = add_image(core, "docker.io/library/a:1", b"one")
    taggers = [
        subprocess.Popen(
            [sys.executable, "-c", TAGGER, str(core.paths.root), str(core.paths.run), row.config.hex, str(number)]
        )
        for number in range(4)
    ]
    assert [tagger.wait(60) for tagger in taggers] == [0] * 4
    names = {f"docker.io/library/of{who}:{number}" for who in range(4) for number in range(20)}
    assert set(listed(core)) == names | {"docker.io/library/a:1"}
    assert not list(core.content.path.glob(".*.tmp"))


def test_what_was_read_before_the_lock_is_not_written_behind_it(core: Core) -> None:
    """The names are read while nobody else can write them down."""
    add_image(core, "docker.io/library/a:1", b"one")
    order = []

    def entries() -> list[dict[str, object]]:
        order.append("read")
        with pytest.raises(BlockingIOError):
            _lock_now(core)
        return []

    core.content.write_index(entries)
    _lock_now(core)
    assert order == ["read"]


def _lock_now(core: Core) -> None:
    import fcntl

    with (core.content.path / ".index.lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_an_entry_says_what_its_name_points_at(core: Core) -> None:
    alone = add_image(core, "docker.io/library/alone:1", b"one")
    child = add_image(core, None, b"two")
    entry = {"mediaType": child.media_type, "digest": str(child.manifest), "size": 1}
    index = put(
        core, OCI_INDEX, json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    )
    rows.forget(core.database, (), [child.manifest], ())
    rows.save_image(core.database, replace(child, root=index.digest), "docker.io/library/many:1", None)
    images.write_index(core)
    found = listed(core)
    assert found["docker.io/library/many:1"]["mediaType"] == OCI_INDEX
    assert found["docker.io/library/many:1"]["size"] == index.size
    assert found["docker.io/library/alone:1"]["mediaType"] == alone.media_type
    # A blob that is gone doesn't keep the others from being written.
    core.content.blob(index.digest).unlink()
    images.write_index(core)
    assert set(listed(core)) == set(found)


def test_what_killed_commands_left_goes_with_the_next_sweep(core: Core) -> None:
    left = [
        core.content.path / ".index.json.123-abc.tmp",
        core.content.path / "blobs" / "sha256" / f".{'a' * 64}.123.tmp",
        core.content.path / "ingest" / "layer-123-abc",
        core.content.path / "ingest" / "import-123-abc",
    ]
    kept = core.content.path / "ingest" / f"sha256-{'a' * 64}"
    for path in (*left, kept):
        path.write_bytes(b"x")
    sweep(core)
    assert not [path for path in left if path.exists()]
    # A pull that was cut off goes on there.
    assert kept.exists()
    sweep(core, everything=True)
    assert not kept.exists()


def test_lists_open_no_image_twice(core: Core) -> None:
    row = add_image(core, "docker.io/library/a:1", b"one", b"three")
    (first,) = images.summaries(core)
    assert first.size == len(b"one") + len(b"three")  # nothing is unpacked here
    for digest in (row.manifest, row.config):
        core.content.blob(digest).unlink()
    assert images.summaries(core) == [first]


def test_a_damaged_image_is_listed_with_the_others(core: Core) -> None:
    add_image(core, "docker.io/library/good:1", b"one")
    bad = add_image(core, "docker.io/library/bad:1", b"two")
    core.content.blob(bad.config).write_bytes(b"{")
    assert {each.names for each in images.summaries(core)} == {("good:1",), ("bad:1",)}
    # Nothing wrong is remembered about it.
    assert {row.facts is None for row in rows.all_images(core.database) if row.manifest == bad.manifest} == {True}


def test_a_thousand_images(core: Core) -> None:
    for number in range(1000):
        digests = [Digest.of(f"{kind}{number}".encode()) for kind in ("manifest", "config")]
        row = rows.ImageRow(digests[0], digests[1], digests[0], "m", 5, float(number))
        rows.save_image(core.database, row, f"docker.io/library/image{number}:latest", None)
    rows.note_facts(core.database, [(row.manifest, rows.Facts(1.0, 2)) for row in rows.all_images(core.database)])
    began = time.process_time()
    assert len(images.summaries(core)) == 1000
    # It takes 15 ms; what opens every image takes 160.
    assert time.process_time() - began < 0.08


def test_removal_without_a_sweep_leaves_it_to_the_next(core: Core) -> None:
    row = add_image(core, "docker.io/library/a:1", b"one")
    layer = Digest.of(b"one")
    removal = store.remove_image(core, "a:1", prune=False)
    assert removal.deleted == (str(row.config),)
    assert core.content.blob(layer).exists()
    sweep(core)
    assert not core.content.blob(layer).exists()


@pytest.mark.parametrize("wrong", [False, True])
def test_many_images_are_few_writes(core: Core, wrong: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []
    write = core.content.write_index
    monkeypatch.setattr(type(core.content), "write_index", lambda _, entries: (writes.append(1), write(entries)))
    with suppress(NotFound), images.index_at_end(core) as noted:
        for number in range(50):
            add_image(core, f"docker.io/library/a:{number}", b"%d" % number)
            noted()
        if wrong:
            raise NotFound("the next image")
    assert set(listed(core)) == {f"docker.io/library/a:{number}" for number in range(50)}
    assert len(writes) < 10
