"""Times scow against docker and podman on the same image, in alternation: `nox -s bench` (root).

Everything happens in mount, network and PID namespaces of its own and in a temporary directory, so that no daemon,
rule, link or mount is left, whatever happens. Counts are bounded by the options.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import engines as e
import image
from report import Results

HERE = Path(__file__).parent
INSIDE = "SCOW_BENCH_INSIDE"
#: Seconds until containers are weighed: idle are those that have been left alone for a while.
SETTLED = 5


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how often each short command is timed")
    parser.add_argument("--pulls", type=int, default=3, help="how often a large image is pulled")
    parser.add_argument("--idle", type=int, default=50, help="how many idle containers are weighed")
    parser.add_argument("--log-lines", type=int, default=2_000_000, help="how many lines of 100 bytes a container logs")
    parser.add_argument("--engines", default="docker,podman", help="which others take part, where installed")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    return parser.parse_args()


def main() -> int:
    asked = options()
    if os.geteuid() != 0:
        sys.stderr.write("the benchmark needs root\n")
        return 1
    if os.environ.get(INSIDE) is None:
        return outside(asked)
    home = Path(os.environ[INSIDE])
    with e.registry(home) as registry:
        taking_part = list(e.found(home, asked.engines.split(",")))
        results = Results({engine.name: engine.version() for engine in taking_part})
        with e.daemons(home, taking_part):
            measure(asked, taking_part, registry, results)
    results.write(asked.output)
    sys.stdout.write("\n" + results.table())
    return 0


def outside(asked: argparse.Namespace) -> int:
    """Go into namespaces, where loopback is up; afterwards remove the directory and the control groups."""
    asked.output = asked.output.absolute()
    home = tempfile.mkdtemp(prefix="scow-bench-", dir="/var/tmp")
    before = control_groups()
    script = 'mount --make-rprivate / && ip link set lo up && exec "$@"'
    arguments = ["sh", "-c", script, "sh", sys.executable, *sys.argv]
    separate = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    try:
        return subprocess.run([*separate, *arguments], env={**os.environ, INSIDE: home}, check=False).returncode
    finally:
        shutil.rmtree(home, ignore_errors=True)
        for group in sorted(control_groups() - before, key=len, reverse=True):
            with suppress(OSError):
                os.rmdir(group)


def control_groups() -> set[str]:
    return {path for path, _, _ in os.walk("/sys/fs/cgroup")}


def measure(asked: argparse.Namespace, taking_part: list[e.Engine], registry: str, results: Results) -> None:
    reference = image.push(registry, "small", image.small())
    for engine in taking_part:
        engine.run("pull", *engine.pull_flags, reference)
        engine.run("run", "--rm", reference, "true")  # bridges, launchers and caches are there from now on
    say("run")
    runs(asked.rounds, taking_part, reference, results)
    say("exec")
    execs(asked.rounds, taking_part, reference, results)
    say("first run")
    first_runs(max(3, asked.rounds // 4), taking_part, reference, results)
    say("pull")
    big = image.push(registry, "large", image.large())
    for _ in range(asked.pulls):
        for engine in taking_part:
            results.add("pull, 7500 files, 100 MB, ms", engine.name, engine.pull(big))
    say("logs")
    logs(asked.pulls, asked.log_lines, taking_part, reference, results)
    say("idle containers")
    for engine in taking_part:
        with idle(engine, reference, asked.idle):
            share = engine.pss() / asked.idle / 1e6
            results.add(f"memory per idle container of {asked.idle}, PSS, MB", engine.name, share)


def runs(rounds: int, taking_part: list[e.Engine], reference: str, results: Results) -> None:
    for _ in range(rounds):
        for network in ("bridge", "none"):
            arguments = ("run", "--rm", "--network", network, reference, "true")
            for engine in taking_part:
                results.add(f"run --rm, {network}, warm, ms", engine.name, engine.timed(*arguments))
    for _ in range(rounds):
        arguments = ("run", "--rm", reference, "true")
        for engine in taking_part:
            value = engine.timed(*arguments, SCOW_WARM="0")
            results.add("run --rm, bridge, no launcher, ms", engine.name, value)


def execs(rounds: int, taking_part: list[e.Engine], reference: str, results: Results) -> None:
    for engine in taking_part:
        engine.run("run", "-d", "--name", "bench", reference, "sleep", "1000")
    for _ in range(rounds):
        for engine in taking_part:
            results.add("exec, ms", engine.name, engine.timed("exec", "bench", "true"))
    for engine in taking_part:
        engine.run("rm", "-f", "bench")


def first_runs(rounds: int, taking_part: list[e.Engine], reference: str, results: Results) -> None:
    """Nothing in the page cache, no launcher; daemons of others stay up, as they do."""
    for _ in range(rounds):
        for engine in taking_part:
            engine.forget()
            os.sync()
            Path("/proc/sys/vm/drop_caches").write_text("3")
            results.add(
                "run --rm, bridge, page cache dropped, ms", engine.name, engine.timed("run", "--rm", reference, "true")
            )


def logs(rounds: int, lines: int, taking_part: list[e.Engine], reference: str, results: Results) -> None:
    """How long it takes to write much output, and to read it and its end."""
    what = f"log of {lines} lines of 100 bytes"
    script = f"busybox yes {'x' * 99} | busybox head -n {lines}"
    for _ in range(rounds):
        for engine in taking_part:
            engine.run("create", "--name", "bench", "--network", "none", reference, "sh", "-c", script)
            began = time.perf_counter()
            engine.run("start", "bench")
            engine.run("wait", "bench")
            results.add(f"{what}, written, ms", engine.name, (time.perf_counter() - began) * 1000)
            results.add(f"{what}, read, ms", engine.name, engine.timed("logs", "bench"))
            results.add(f"{what}, --tail 10, ms", engine.name, engine.timed("logs", "--tail", "10", "bench"))
            engine.run("rm", "-f", "bench")
            engine.run("create", "--name", "bench", reference, "true")
            results.add("empty log, --tail 10, ms", engine.name, engine.timed("logs", "--tail", "10", "bench"))
            engine.run("rm", "-f", "bench")


@contextmanager
def idle(engine: e.Engine, reference: str, count: int) -> Iterator[None]:
    names = [f"idle{number}" for number in range(count)]
    try:
        for name in names:
            engine.run("run", "-d", "--name", name, reference, "sleep", "1000")
        time.sleep(SETTLED)
        yield
    finally:
        with suppress(RuntimeError):
            engine.run("rm", "-f", *names)


def say(text: str) -> None:
    sys.stderr.write(f"... {text}\n")


if __name__ == "__main__":
    sys.exit(main())
