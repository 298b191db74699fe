"""What builds leave behind: shown as docker shows it, gone when asked or when it is too much, never while used."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from . import machine
from .conftest import Scow
from .test_build import build, context, launcher, steps

__all__ = ["context", "launcher"]

TEXT = """FROM busybox AS tool
RUN head -c 3000000 /dev/urandom > /big
FROM busybox
COPY --from=tool /big /big
RUN --mount=type=cache,id=pip,target=/cache head -c 500000 /dev/urandom > /cache/x; echo done > /done
COPY code /code
"""
KEYS = ("ID", "CacheType", "Shared", "InUse", "Description")


def entries(scow: Scow) -> list[dict[str, str]]:
    listed = scow("builder", "du", "--format", "json").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key in KEYS} for line in listed]


def of_kind(scow: Scow, kind: str) -> int:
    return sum(each["CacheType"] == kind for each in entries(scow))


def usage(scow: Scow) -> dict[str, list[str]]:
    """The lines of `system df`: total, active, size, reclaimable."""
    form = "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
    lines = [line.split("\t") for line in scow("system", "df", "--format", form).splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_it_is_listed_and_pruned(pulled: Scow, context: Path) -> None:
    (context / "code").write_text("1")
    old = time.time() - 100
    os.utime(context / "code", (old, old))
    build(pulled, context, TEXT, "-t", "built")
    found = entries(pulled)
    assert sorted(each["CacheType"] for each in found) == ["exec.cachemount", *["regular"] * 4]
    assert [each["Shared"] for each in found].count("true") == 3
    assert {"[tool] RUN head -c 3000000 /dev/urandom > /big", "cache mount pip"} <= {e["Description"] for e in found}
    table = pulled("builder", "du").splitlines()
    assert table[0].split() == ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]
    assert [line.split("\t")[0] for line in table[-4:]] == ["Shared:", "Private:", "Reclaimable:", "Total:"]
    verbose = pulled("builder", "du", "--verbose")
    assert "Usage count:\t1\n" in verbose
    assert "Type:\t\texec.cachemount\n" in verbose
    assert usage(pulled)["Build Cache"][:2] == ["5", "0"]
    assert usage(pulled)["Leftovers"][2] == "0B"
    # Nobody says yes.
    said = pulled.try_("builder", "prune", stdin=b"n\n")
    assert (said.returncode, said.stdout) == (0, b"")
    assert b"all dangling build cache" in said.stderr
    assert pulled("builder", "prune", "-f", "--filter", "until=1h") == "Total reclaimed space: 0B\n"
    assert len(entries(pulled)) == 5
    # The longest unused goes first, and no more than is asked.
    gone = pulled("builder", "prune", "-f", "--keep-storage", "4m").splitlines()
    assert gone[0] == "Deleted build cache objects:"
    assert len(gone) == 4
    assert gone[3].startswith("Total reclaimed space: ")
    assert len(entries(pulled)) == 4
    freed = pulled("builder", "prune", "-f")
    assert "Total reclaimed space: 0B" not in freed
    assert [each["Shared"] for each in entries(pulled)] == ["true"] * 3
    assert usage(pulled)["Build Cache"][2] == "0B"
    # The image has lost nothing; all but the first stage is still known.
    assert pulled("run", "--rm", "built", "cat", "/done") == "done\n"
    assert pulled("fsck").startswith("Checked")
    pulled("builder", "prune", "-af")
    assert entries(pulled) == []
    assert pulled("run", "--rm", "built", "cat", "/code") == "1"
    assert "all well" in pulled("fsck")
    for words, code, says in (
        (("--filter", "until=yesterday"), 1, "filter until"),
        (("--filter", "colour=red"), 1, "unknown filter 'colour'"),
        (("--filter", "inuse=perhaps"), 1, "write true or false"),
        (("--max-used-space", "much"), 125, "not a size"),
    ):
        pulled.fails("builder", "prune", "-f", *words, code=code, says=says)


def test_an_image_that_goes_leaves_its_cache_and_system_prune_takes_it(pulled: Scow, context: Path) -> None:
    (context / "code").write_text("1")
    build(pulled, context, TEXT, "-t", "built")
    pulled("rmi", "built")
    assert len(steps(pulled, context, TEXT, "-t", "built")[1]) == 4
    pulled("rmi", "built")
    assert "all dangling build cache" in pulled.try_("system", "prune", stdin=b"n").stderr.decode()
    # Entries have no labels: they are nobody's business then.
    pulled("system", "prune", "-f", "--filter", "label=x")
    assert len(entries(pulled)) == 5
    assert "Deleted build cache objects:" in pulled("system", "prune", "-f")
    assert entries(pulled) == []
    left = usage(pulled)
    assert [left[kind][0] for kind in ("Images", "Build Cache", "Leftovers")] == ["1", "0", "0"]
    # gc counts it, too.
    build(pulled, context, TEXT, "-t", "built")
    said = pulled("gc", "--keep", "0", "--dry-run")
    assert "build cache" in said
    pulled("gc", "--keep", "0")
    assert [usage(pulled)[kind][0] for kind in ("Images", "Build Cache", "Leftovers")] == ["0", "0", "0"]


def test_what_a_running_build_uses_stays(pulled: Scow, context: Path, tmp_path: Path) -> None:
    text = """FROM busybox
RUN echo one > /one
RUN --mount=type=cache,id=held,target=/c touch /c/used && until [ -e /c/go ]; do sleep 0.1; done; cat /one > /two
"""
    build(pulled, context, "FROM busybox\nRUN echo old > /old\n", "-t", "old")
    pulled("rmi", "old")
    (context / "Dockerfile").write_text(text)
    running = pulled.start("build", "-q", "-t", "slow", str(context))
    caches = pulled.root / "build" / "caches"
    assert machine.eventually(lambda: bool(list(caches.glob("*/content/used"))))
    assert {each["Description"]: each["InUse"] for each in entries(pulled)} == {
        "cache mount held": "true",
        "[stage-0] RUN echo one > /one": "true",
        "[stage-0] RUN echo old > /old": "false",
    }
    said = pulled.try_("builder", "prune", "-af")
    assert len(said.stdout.decode().splitlines()) == 4, said
    assert b"goes when it ends" in said.stderr
    assert [each["InUse"] for each in entries(pulled)] == ["true", "true"]
    (go,) = caches.glob("*/content")
    (go / "go").touch()
    assert running.wait(30) == 0
    assert pulled("run", "--rm", "slow", "cat", "/two") == "one\n"
    assert usage(pulled)["Leftovers"][0] == "0"
    assert steps(pulled, context, text)[0] == []


def test_builds_and_prunes_at_once_lose_nothing(pulled: Scow, context: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for round_ in range(4):
        for number, place in enumerate((context, other)):
            (place / "code").write_text(f"{number} {round_}")
            (place / "Dockerfile").write_text(TEXT.replace("3000000", "30000"))
        builds = [pulled.start("build", "-q", "-t", f"b{number}", str(p)) for number, p in enumerate((context, other))]
        prunes = [pulled.start("builder", "prune", "-af"), pulled.start("system", "prune", "-f")]
        for each in (*builds, *prunes):
            out, errors = each.communicate(timeout=60)
            assert each.returncode == 0, (out, errors)
        for number in range(2):
            assert pulled("run", "--rm", f"b{number}", "cat", "/code") == f"{number} {round_}"
    assert "all well" in pulled("fsck")
    pulled("builder", "prune", "-af")
    pulled("system", "prune", "-f")
    assert usage(pulled)["Leftovers"][0] == "0"
    assert not list((pulled.root / "build" / "caches").iterdir())
    assert pulled("run", "--rm", "b0", "cat", "/done") == "done\n"


@pytest.fixture
def configured(pulled: Scow) -> Scow:
    """An engine whose configuration can be written to."""
    pulled.config.write_text(pulled.config.read_text() + "[build]\n")
    return pulled


def test_limits(configured: Scow, context: Path) -> None:
    text = configured.config.read_text()
    one = "FROM busybox\nRUN head -c 1000000 /dev/urandom > /{}\n"
    configured.config.write_text(text + "cache_max_bytes = 5_000_000\n")
    for name in "abcde":
        build(configured, context, one.format(name), "-t", "same")
        configured("image", "prune", "-f")
    # Two megabytes each; at the last look images had the last two, which then don't count.
    assert [each["Description"][-1] for each in entries(configured)] == ["e", "d", "c", "b"]
    configured.config.write_text(text + "cache_max_age = 0.5\n")
    time.sleep(0.6)
    (configured.root / "build" / "collected").unlink()
    build(configured, context, one.format("f"), "-t", "same")
    # The image that was called so a moment ago still has its layer.
    assert [each["Description"][-1] for each in entries(configured)] == ["f", "e"]
    for wrong, says in (
        ("cache_max_byte = 1", "unknown field `cache_max_byte`"),
        ("cache_max_bytes = -2", "cache_max_bytes"),
        ('cache_max_age = "1h"', "cache_max_age"),
    ):
        configured.config.write_text(text + wrong + "\n")
        configured.fails("builder", "du", code=2, says=says)
    configured.config.write_text(text)


def test_a_cache_that_is_no_database(pulled: Scow, context: Path) -> None:
    """It costs time, no more."""
    (context / "code").write_text("1")
    build(pulled, context, TEXT, "-t", "built")
    for path in (pulled.root / "build").glob("cache.db*"):
        path.unlink()
    (pulled.root / "build" / "cache.db").write_bytes(b"no database at all" * 1000)
    assert pulled("builder", "du", "--filter", "type=regular").splitlines()[-1] == "Total:\t\t0B"
    assert len(steps(pulled, context, TEXT, "-t", "built")[0]) == 4
    subprocess.run(["rm", "-rf", pulled.root / "build"], check=True)
    assert pulled("builder", "prune", "-af") == "Total reclaimed space: 0B\n"
    assert len(steps(pulled, context, TEXT)[0]) == 4
