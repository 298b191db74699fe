"""The claims: settings are checked, other drivers declined, refusals have a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scow.api import Endpoint, Invalid, NetworkRequest, PluginContext, PortMapping
from scow.testing.networks import MemoryJournal
from scow_plugins import bridge, hostnet, nonet


def _context(tmp_path: Path, plugin: str, /, **settings: Any) -> PluginContext:
    return PluginContext(plugin, tmp_path / "state", tmp_path / "run", settings, instance="unit")


@pytest.mark.parametrize("module", [bridge, hostnet, nonet])
def test_an_unknown_key_is_refused_by_name(module: Any, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="subnett"):
        module.Plugin(_context(tmp_path, "bridge", subnett="x"))


@pytest.mark.parametrize("name", ["a-name-that-is-too-long", "a/b", "a b", "ä"])
def test_a_bridge_must_have_a_devices_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="name"):
        bridge.Plugin(_context(tmp_path, "bridge", name=name))


async def test_host_discards_ports_and_has_no_namespace(tmp_path: Path) -> None:
    asked = NetworkRequest("host", "c", "c", "c", MemoryJournal(), (PortMapping(80, 80),), nameservers=("192.0.2.1",))
    held = hostnet.Plugin(_context(tmp_path, "host")).network(asked)
    assert held is not None
    async with held as endpoint:
        assert endpoint == Endpoint("host", None, nameservers=("192.0.2.1",))


async def test_none_refuses_ports(tmp_path: Path) -> None:
    asked = NetworkRequest("none", "c", "c", "c", MemoryJournal(), (PortMapping(80, 80),))
    held = nonet.Plugin(_context(tmp_path, "none")).network(asked)
    assert held is not None
    with pytest.raises(Invalid, match="'none'"):
        async with held:
            pass


@pytest.mark.parametrize("module", ["bridge", "hostnet", "nonet"])
def test_claims_load_nothing_heavy(module: str) -> None:
    heavy = "{'trio', 'httpx', 'pyroute2', 'ssl', 'asyncio', 'structlog', 'subprocess', 'sqlite3'}"
    code = f"import sys, scow_plugins.{module}; print(*sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
