"""The claims: what is taken, what is left to others, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from scow.api import Descriptor, Digest, Invalid, Located, Platform, PluginContext, Source, parse_named
from scow.testing.registry import Registry, serve
from scow_plugins.registry import Plugin

AMD64 = Platform("linux", "amd64")


def make(tmp_path: Path, **settings: object) -> Plugin:
    return Plugin(PluginContext("registry", tmp_path, tmp_path, settings))


def test_what_is_claimed(tmp_path):
    plugin = make(tmp_path)
    descriptor = Descriptor("x", Digest.of(b""), 0)
    assert plugin.probe() is None
    assert plugin.resolve(parse_named("nginx"), AMD64) is not None
    assert plugin.resolve(Located("host", ""), AMD64) is None
    assert plugin.fetch(Source("registry", "docker.io/library/nginx"), descriptor) is not None
    assert plugin.fetch(Source("host", ""), descriptor) is None


def test_a_wrong_configuration_is_refused_at_once(tmp_path):
    with pytest.raises(Invalid, match=r'registries."docker.io" has no key \'mirorrs\''):
        make(tmp_path, registries={"docker.io": {"mirorrs": []}})


def test_a_claim_imports_nothing_heavy(tmp_path):
    program = f"""if True:
        import sys
        from pathlib import Path
        from scow_plugins.registry import Plugin
        from scow.api import *
        path = Path({str(tmp_path)!r})
        plugin = Plugin(PluginContext("registry", path, path, {{}}))
        assert plugin.resolve(parse_named("nginx"), Platform.host())
        heavy = {{"trio", "httpcore2", "ssl", "asyncio", "structlog", "subprocess", "sqlite3", "socket"}}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert done.stdout.strip() == "[]"


def test_one_plugin_serves_several_trio_runs(tmp_path):
    """Connections end with the run they were made in; pytest turns an unclosed one into an error."""
    registry = Registry()
    registry.add_image("a")
    plugin = make(tmp_path)

    async def main() -> None:
        async with serve(registry):
            for _ in range(2):
                run = plugin.resolve(parse_named(f"{registry.host}/a"), AMD64)
                assert run is not None
                await run()

    trio.run(main)
    trio.run(main)
    assert registry.connections == 2
