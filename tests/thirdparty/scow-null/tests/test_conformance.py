"""The whole test of a third-party driver: the kernel's own suite over it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scow_null import Plugin

from scow.api import PluginContext
from scow.testing.networks import NETWORK_CHECKS, Check, NetworkMaker, run


@pytest.mark.parametrize("check", NETWORK_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Check, tmp_path: Path) -> None:
    context = PluginContext("null", tmp_path / "state", tmp_path / "run", {})
    run(check, NetworkMaker("null", lambda: Plugin(context)))
