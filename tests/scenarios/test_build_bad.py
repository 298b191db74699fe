"""Bad input for builds: one clear message with file and line, the right exit code, and nothing left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from . import machine
from .conftest import Scow, engine_at
from .test_build import build, context, launcher, steps

__all__ = ["context", "launcher"]

GOOD = "FROM busybox\nRUN echo good > /good\nCOPY file /file\n"

#: Dockerfile, flags, exit code, the first line of the message, what is shown of the file.
WRONG: dict[str, tuple[str, tuple[str, ...], int, str, str]] = {
    "nothing": ("", (), 2, "Dockerfile: the file has no instructions", ""),
    "only a comment": ("# FROM busybox\n", (), 2, "Dockerfile: the file has no instructions", ""),
    "no FROM": ("ARG A\n", (), 2, "Dockerfile:1: the file has no FROM", "ARG A"),
    "FROM too late": (
        "RUN x\nFROM busybox\n",
        (),
        2,
        "Dockerfile:1: no build stage in current context: RUN comes before the first FROM",
        "RUN x",
    ),
    "unknown instruction": ("FROM busybox\nRUM x\n", (), 2, "Dockerfile:2: unknown instruction: RUM", "RUM x"),
    "bad flag": (
        "FROM busybox\n\nCOPY --form=a b c\n",
        (),
        2,
        "Dockerfile:3: unknown flag: --form",
        "COPY --form=a b c",
    ),
    "bad flag of the command": ("FROM busybox\n", ("--frob",), 125, "unknown flag: --frob", ""),
    "bad value": (
        "FROM busybox\nHEALTHCHECK --interval=x CMD y\n",
        (),
        2,
        "Dockerfile:2: invalid duration 'x'",
        "HEALTHCHECK --interval=x CMD y",
    ),
    "bad signal": ("FROM busybox\nSTOPSIGNAL FOO\n", (), 2, "Dockerfile:2: there is no signal 'FOO'", "STOPSIGNAL FOO"),
    "unknown stage": (
        "FROM busybox\nCOPY --from=3 /a /b\n",
        (),
        2,
        "Dockerfile:2: invalid stage index 3: there are 1 stages",
        "COPY --from=3 /a /b",
    ),
    "unknown target": (
        "FROM busybox AS here\n",
        ("--target", "there"),
        2,
        "target stage 'there' could not be found",
        "",
    ),
    "cycle": (
        "FROM busybox AS a\nCOPY --from=b /x /x\nFROM busybox AS b\nCOPY --from=a /x /x\n",
        (),
        2,
        "Dockerfile:3: circular dependency detected on stage b: b → a → b",
        "FROM busybox AS b",
    ),
    "missing file": (
        "FROM busybox\nCOPY none /\n",
        (),
        1,
        "Dockerfile:2: 'none' is not in the build context",
        "COPY none /",
    ),
    "a way out": (
        "FROM busybox\nCOPY ../outside /x\n",
        (),
        1,
        "Dockerfile:2: 'outside' is not in the build context",
        "COPY ../outside /x",
    ),
    "a link out": (
        "FROM busybox\nCOPY out /x\n",
        (),
        1,
        "Dockerfile:2: 'out' is not in the build context",
        "COPY out /x",
    ),
    "a relative link out": (
        "FROM busybox\nCOPY up/secret /x\n",
        (),
        1,
        "Dockerfile:2: 'up/secret' is not in the build context",
        "COPY up/secret /x",
    ),
    "links in a circle": (
        "FROM busybox\nADD circle /x\n",
        (),
        1,
        "Dockerfile:2: 'circle' is not in the build context",
        "ADD circle /x",
    ),
    "a stage's link out": (
        "FROM busybox\nRUN ln -s /proc/1/root{outside}/secret /l\nFROM busybox\nCOPY --from=0 /l /x\n",
        (),
        1,
        "Dockerfile:4: 'l' is not in stage 0",
        "COPY --from=0 /l /x",
    ),
    "capital letters": ("FROM busybox\n", ("-t", "Mine"), 2, "image name 'Mine' must be lower case", ""),
    "a base with capital letters": (
        "FROM Busybox\n",
        (),
        2,
        "Dockerfile:1: image name 'Busybox' must be lower case",
        "FROM Busybox",
    ),
    "a secret that isn't given": (
        "FROM busybox\nRUN --mount=type=secret,id=tok,required=true cat /run/secrets/tok\n",
        (),
        1,
        "Dockerfile:2: secret tok: not found",
        "RUN --mount=type=secret,id=tok,required=true cat /run/secrets/tok",
    ),
    "a secret that isn't there": (
        "FROM busybox\n",
        ("--secret", "id=tok,src=/no/such"),
        1,
        "secret tok: /no/such can't be read: No such file or directory",
        "",
    ),
    "a failing command": (
        "FROM busybox\nRUN echo first\nRUN echo out; echo err >&2; \\\n    exit 7\n",
        (),
        1,
        "Dockerfile:3: process '/bin/sh -c echo out; echo err >&2;     exit 7' did not complete successfully: exit",
        "RUN echo out; echo err >&2; \\",
    ),
    "a command that isn't there": (
        'FROM busybox\nRUN ["/none"]\n',
        (),
        1,
        'Dockerfile:2: exec: "/none": stat /none: no such file or directory',
        'RUN ["/none"]',
    ),
    "a user that isn't there": (
        "FROM busybox\nUSER nobody-here\nRUN true\n",
        (),
        1,
        "Dockerfile:3: unable to find user nobody-here: no matching entries in passwd file",
        "RUN true",
    ),
    "a base that isn't there": ("FROM none/such\n", (), 1, "Dockerfile:1: image none/such:latest", "FROM none/such"),
    "a URL that nobody serves": (
        "FROM busybox\nADD http://127.0.0.1:1/x /\n",
        (),
        1,
        "Dockerfile:2: http://127.0.0.1:1/x can't be fetched: connection refused",
        "ADD http://127.0.0.1:1/x /",
    ),
    "a directory onto a file": (
        "FROM busybox\nCOPY dir /bin/sh\n",
        (),
        2,
        "Dockerfile:2: cannot copy to non-directory: /bin/busybox",
        "COPY dir /bin/sh",
    ),
}


@pytest.fixture
def kept(pulled: Scow, context: Path, tmp_path: Path) -> Scow:
    """An engine with a good build in its cache, and a context with ways out of it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (context / "dir").mkdir()
    (context / "dir" / "in").write_text("in")
    (context / "file").write_text("file")
    (context / "out").symlink_to(outside / "secret")
    (context / "up").symlink_to("../outside")
    (context / "circle").symlink_to("circle")
    build(pulled, context, GOOD, "-t", "good")
    return pulled


def state(scow: Scow) -> dict[str, object]:
    """What a failed build must not change: files, records, mounts, what runs."""
    root = scow.root
    with closing(sqlite3.connect(root / "build" / "cache.db")) as connection:
        records = connection.execute("SELECT key, digest, chain FROM layers ORDER BY key").fetchall()
    return {
        "records": records,
        "work": list((root / "build" / "work").iterdir()),
        "ingest": list((root / "content" / "ingest").iterdir()),
        "blobs": sorted(path.name for path in (root / "content" / "blobs").glob("*/*")),
        "layers": sorted(str(path) for path in (root / "storage").glob("*/layers/*")),
        "caches": sorted(path.name for path in (root / "build" / "caches").glob("*")),
        "running": list((scow.run_dir / "containers").glob("*")),
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line],
    }


def test_wrong(kept: Scow, context: Path, tmp_path: Path) -> None:
    for title, (text, flags, code, message, shown) in WRONG.items():
        (context / "Dockerfile").write_text(text.replace("{outside}", str(tmp_path / "outside")))
        before = state(kept)
        done = kept.try_("build", "--progress", "plain", "--no-cache", *flags, str(context))
        errors = done.stderr.decode()
        assert done.returncode == code, (title, errors)
        assert done.stdout == b"", title
        told = [line for line in errors.splitlines() if line.startswith("scow: ")]
        assert len(told) == 1, (title, errors)
        assert told[0].startswith(f"scow: {message}"), (title, errors)
        assert "Traceback" not in errors, title
        assert "bug in scow" not in errors, title
        if shown:
            number = int(message.split(":")[1])
            gutter, carets = f"{number:>5} | {shown}", r"\n      \| +\^+(\n|$)|\n      \| \^+(\n|$)"
            assert gutter in errors, (title, errors)
            assert re.search(re.escape(gutter) + f"({carets})", errors), (title, errors)
        assert machine.eventually(lambda: _same(state(kept), before, text)), (title, before, state(kept))  # noqa: B023
    assert kept("build", "-q", "-f", "-", str(context), stdin=GOOD.encode()) == kept("inspect", "-f", "{{.Id}}", "good")
    assert "all well" in kept("fsck")
    said = kept.try_("build", "-f", "-", str(context), stdin=b"FROM busybox\nCOPY out /x\n").stderr.decode()
    assert f"hint: out is a link to {tmp_path}/outside/secret, and links never lead out of the build context" in said


def _same(now: dict[str, object], before: dict[str, object], text: str) -> bool:
    """Steps before the one that fails are done, and known."""
    if text.count("RUN ") > 1 or "--from=0" in text:
        return all(now[each] == before[each] for each in ("work", "ingest", "running", "mounts"))
    return now == before


def test_a_failed_step_shows_its_output(kept: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN seq 40; printf 'no\\033[31mcolour\\n'; exit 3\n")
    errors = kept.fails("build", "-q", str(context), code=1, says="exit code: 3")
    shown = [line.removeprefix("      > ") for line in errors.splitlines() if line.startswith("      > ")]
    assert shown == [*map(str, range(32, 41)), "no\\x1b[31mcolour"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("text", ["RUN touch /tmp/x; sleep 4323", "COPY many /many"])
def test_interrupted(kept: Scow, context: Path, number: signal.Signals, text: str) -> None:
    (context / "many").mkdir()
    big = context / "many" / "big"
    with big.open("wb") as file:
        file.truncate(3 << 30)
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN echo before\n{text}\n")
    process = kept.start(
        "build",
        str(context),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: [signal.signal(each, signal.SIG_DFL) for each in (signal.SIGINT, signal.SIGTERM)],
    )
    work = kept.root / "build" / "work"
    if text.startswith("RUN"):
        assert machine.eventually(lambda: _sleeps())
    else:
        assert process.stderr is not None
        while b"COPY many" not in process.stderr.readline():
            pass
        time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if number is signal.SIGINT else 143), errors
    assert b"Traceback" not in errors
    assert machine.eventually(lambda: not list(work.iterdir()) and not _sleeps())
    assert not list((kept.run_dir / "containers").glob("*"))
    assert machine.eventually(lambda: not list((kept.root / "content" / "ingest").iterdir()))
    big.unlink()
    # What was done before is known, what was cut off isn't.
    assert steps(kept, context, "FROM busybox\nRUN echo before\n") == ([], ["RUN echo before"])
    assert "all well" in kept("fsck")


def _sleeps() -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if b"sleep\x004323\x00" in path.read_bytes():
                return True
        except OSError:
            continue
    return False


@pytest.fixture
def small(launcher: bool, tmp_path: Path, registry: str, busybox: str) -> Iterator[Scow]:
    """An engine on a disk of 24 MB."""
    home = tmp_path / "small"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(home)], check=True)
    try:
        for engine in engine_at(home, launcher, registry):
            engine("pull", "-q", busybox)
            yield engine
    finally:
        assert machine.eventually(lambda: subprocess.run(["umount", home], check=False).returncode == 0)


def test_a_full_disk(small: Scow, context: Path) -> None:
    """In a step, in its layer, in what is copied, in a cache: told as what it is; then there is room as before."""
    (context / "file").write_text("file")
    (context / "Dockerfile").write_text(GOOD)
    small("build", "-q", "-t", "good", str(context))
    (context / "big").write_bytes(os.urandom(15_000_000))
    before = state(small)

    def free() -> int:
        return shutil.disk_usage(small.root).free

    room = free()
    for line, says in (
        ("RUN cat /dev/zero > /x", "exit code: 1"),
        ("RUN head -c 12000000 /dev/urandom > /x", "is full"),
        ("RUN head -c 8000000 /dev/urandom > /x", "no room to unpack"),
        ("COPY big /big", "no room to unpack"),
        ("COPY big file /big/", "no room to unpack"),
        ("ADD big /big", "no room to unpack"),
        ("RUN --mount=target=/ctx cat /ctx/file", "no room to unpack"),
    ):
        errors = ""
        (context / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
        done = small.try_("build", str(context))
        errors = done.stderr.decode()
        assert done.returncode == 1, errors
        assert errors.count("scow: ") == 1, errors
        assert "scow: Dockerfile:2: " in errors, errors
        assert says in errors, errors
        assert "bug" not in errors, errors
        assert machine.eventually(lambda: state(small) == before), (line, before, state(small))
        assert machine.eventually(lambda: free() > room - 200_000), (line, room, free())
    # A cache that has filled the disk is somebody's: it stays, and can be removed although there is no room at all.
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=cache,id=all,target=/c cat /dev/zero > /c/x\n")
    errors = small.fails("build", str(context), code=1, says="exit code: 1")
    assert "bug" not in errors, errors
    assert free() < 100_000
    small.fails("run", "--rm", "good", "true", code=125, says="is full")
    assert small("cache", "rm", "all") == "all\n"
    assert small("run", "--rm", "good", "cat", "/good") == "good\n"
    done = small.try_("cache", "import", "all", stdin=_archive(context))
    assert done.returncode == 1
    assert done.stderr.count(b"scow: ") == 1
    assert b"full" in done.stderr or b"no room" in done.stderr
    assert machine.eventually(lambda: state(small) == before), (before, state(small))
    # All of it can be done as soon as there is room.
    (context / "Dockerfile").write_text("FROM busybox\nCOPY big /big\n")
    subprocess.run(["mount", "-o", "remount,size=100m", small.root.parent], check=True)
    small("build", "-q", "-t", "large", str(context))
    assert small("run", "--rm", "large", "wc", "-c", "/big").split()[0] == "15000000"
    assert "all well" in small("fsck")


def _archive(context: Path) -> bytes:
    """Larger than the disk."""
    shutil.copy(context / "big", context / "more")
    return subprocess.run(["tar", "c", "-C", context, "big", "more"], capture_output=True, check=True).stdout
