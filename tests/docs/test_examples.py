"""The examples run: plugins where they are installed, programs on a real engine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scow.api import Descriptor, Digest, Located, NotFound, Platform, PluginContext, Snapshot, Source
from scow.plugins import STAGES

PROJECT = Path(__file__).parents[2]
EXAMPLES = PROJECT / "docs" / "examples"
#: The entry point's name of each hook's example.
NAMES = {
    "resolve": "shelf",
    "fetch": "shelves",
    "unpack": "notes",
    "mount": "headroom",
    "network": "names",
    "exec": "book",
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def _environment(tmp_path: Path, *path: Path) -> dict[str, str]:
    environment = {**os.environ, "SCOW_ROOT": str(tmp_path / "root"), "SCOW_WARM": "0"}
    environment.pop("SCOW_RUN", None)
    source = [PROJECT / "kernel", PROJECT / "plugins"]
    environment["PYTHONPATH"] = os.pathsep.join(map(str, [*path, *source, EXAMPLES]))
    return environment


def _run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _plugin(stage: str, tmp_path: Path, **settings: Any) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{stage}", EXAMPLES / f"{stage}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Plugin(PluginContext(NAMES[stage], tmp_path / "state", tmp_path / "run", settings))


@pytest.mark.parametrize("stage", STAGES)
def test_each_example_is_a_plugin(stage: str, tmp_path: Path) -> None:
    assert callable(getattr(_plugin(stage, tmp_path), stage))


async def test_resolve_reads_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "web.json").write_bytes(b"{}")
    plugin = _plugin("resolve", tmp_path, directory=str(tmp_path))
    assert plugin.resolve(Located("host", ""), Platform.host()) is None
    resolved = await plugin.resolve(Located("shelf", "web"), Platform.host())()
    assert resolved.manifest.descriptor.digest == Digest.of(b"{}")
    with pytest.raises(NotFound, match="no such image: shelf:nothing"):
        await plugin.resolve(Located("shelf", "nothing"), Platform.host())()


class _Sink:
    """Has two bytes already."""

    def __init__(self) -> None:
        self.data = b"ab"
        self.offset = 2

    async def write(self, data: bytes) -> None:
        self.data += data


async def test_fetch_goes_on_where_another_stopped(tmp_path: Path) -> None:
    digest = Digest.of(b"abcdef")
    (tmp_path / "sha256").mkdir()
    (tmp_path / "sha256" / digest.hex).write_bytes(b"abcdef")
    plugin, sink = _plugin("fetch", tmp_path, directory=str(tmp_path)), _Sink()
    await plugin.fetch(Source("registry", ""), Descriptor("", digest, 6))(sink)
    assert sink.data == b"abcdef"
    with pytest.raises(NotFound):
        await plugin.fetch(Source("registry", ""), Descriptor("", Digest.of(b"x"), 1))(sink)


async def test_unpack_notes_each_layer(tmp_path: Path) -> None:
    snapshot = Snapshot("overlay", Digest.of(b""), tmp_path)

    async def run() -> Snapshot:
        return snapshot

    around = _plugin("unpack", tmp_path).unpack(None)
    next(around)
    with pytest.raises(StopIteration) as returned:
        around.send(run)
    assert await returned.value.value() == snapshot
    assert (tmp_path / "state" / "layers.tsv").read_text().startswith("overlay\tsha256:")


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    ("program", "said"),
    [("run_container", 13), ("serve_page", 12), ("follow_events", 40)],
    ids=["run_container", "serve_page", "follow_events"],
)
def test_programs_run(program: str, said: int, tmp_path: Path) -> None:
    shown = _run([sys.executable, str(EXAMPLES / f"{program}.py")], _environment(tmp_path))
    assert len(shown) >= said, shown


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The hooks' examples, as a distribution on the path."""
    info = tmp_path / "site" / "scow_examples-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scow-examples\nVersion: 1.0\n")
    lines = [f"[scow.{stage}]\n{name} = {stage}:Plugin\n" for stage, name in NAMES.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return info.parent


@pytest.mark.root
@needs_root
def test_hooks_take_part(installed: Path, tmp_path: Path) -> None:
    environment = _environment(tmp_path, installed)
    config = tmp_path / "config.toml"
    config.write_text('[plugins.names]\nhosts = { "192.0.2.10" = ["db", "db.internal"] }\n')
    scow = [sys.executable, str(PROJECT / "kernel" / "bin" / "scow-python"), "--config", str(config)]
    listed = _run([*scow, "plugins"], environment)
    assert all(name in listed for name in NAMES.values())
    shown = _run([*scow, "run", "--rm", "host:", "cat", "/etc/hosts"], environment)
    assert "192.0.2.10\tdb db.internal" in shown
    assert "\tcat\t" in (tmp_path / "root" / "runtime" / "book" / "book.tsv").read_text()


@pytest.mark.root
@needs_root
def test_a_full_disk_is_refused_by_the_example(installed: Path, tmp_path: Path) -> None:
    environment = _environment(tmp_path, installed)
    config = tmp_path / "config.toml"
    config.write_text("[plugins.headroom]\nmegabytes = 1000000000\n")
    scow = [sys.executable, str(PROJECT / "kernel" / "bin" / "scow-python"), "--config", str(config)]
    done = subprocess.run(
        [*scow, "run", "--rm", "host:", "true"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    assert done.returncode == 125
    assert "MB are wanted" in done.stderr
