"""kill -9 of a build at any moment: the same build again succeeds, and nothing of the first one is left over."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from . import machine
from .conftest import Scow
from .test_build import context, launcher
from .test_build_garbage import usage

__all__ = ["context", "launcher"]

TEXT = """FROM busybox AS tool
RUN --mount=type=cache,id=kept,target=/c echo x >> /c/x; head -c 300000 /dev/urandom > /made
FROM busybox AS other
COPY files /files
RUN --mount=target=/ctx,source=files cat /ctx/* > /all
FROM busybox
WORKDIR /srv
COPY --from=tool /made /made
COPY --from=other /all /all
RUN head -c 200000 /dev/urandom > /more && cat /all > /copy
COPY changing /changing
CMD cat /changing
"""
#: Parts of an undisturbed build's time.
MOMENTS = (0.4, 0.6, 0.75, 0.9)


def prepare(context: Path) -> None:
    (context / "files").mkdir()
    for number in range(200):
        (context / "files" / str(number)).write_bytes(os.urandom(3000))
    (context / "Dockerfile").write_text(TEXT)


def begin(scow: Scow, context: Path, number: int) -> subprocess.Popen[bytes]:
    """A build of which nothing is cached."""
    (context / "changing").write_text(str(number))
    (context / "files" / "0").write_text(str(number))
    # The builder itself is to be killed, not who waits for it.
    scow.warm = False
    try:
        return scow.start(
            *("build", "-q", "--no-cache", "-t", "built", str(context)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    finally:
        scow.warm = True


def killed(scow: Scow, context: Path, number: int, seconds: float) -> None:
    """Kill a build after a while; then build again, and look what is left."""
    process = begin(scow, context, number)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # What another command finds at once is no trouble, either.
    scow("builder", "du")
    again = scow.try_("build", "-q", "-t", "built", str(context))
    assert again.returncode == 0, (seconds, again.stderr.decode())
    assert scow("run", "--rm", "--network", "none", "built") == str(number)
    found = scow.try_("fsck")
    assert found.returncode == 0, (seconds, found.stdout.decode())
    root = scow.root
    places = (root / "build" / "work", root / "content" / "ingest", scow.run_dir / "containers")
    assert machine.eventually(lambda: not [path for place in places for path in place.glob("*")]), (
        seconds,
        [path for place in places for path in place.rglob("*")],
    )
    scow("image", "prune", "-f")
    left = usage(scow)
    assert left["Leftovers"][0] == "0", (seconds, left)
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]


def test_a_killed_build_leaves_nothing(pulled: Scow, context: Path) -> None:
    """SCOW_KILLS=100: at so many random moments, too."""
    prepare(context)
    more = [random.uniform(0.1, 1.05) for _ in range(int(os.environ.get("SCOW_KILLS", "0")))]
    began = time.monotonic()
    assert begin(pulled, context, 0).wait(60) == 0
    whole = time.monotonic() - began
    for number, part in enumerate((*MOMENTS, *more), 1):
        killed(pulled, context, number, part * whole)
