"""Whether overlayfs works here: one real mount of two empty directories."""

from __future__ import annotations

import os
from pathlib import Path

from scow.api import PluginContext, ProbeResult
from scow.api.layers import mount_problem, try_overlay


def probe(context: PluginContext) -> ProbeResult | None:
    """None when it works, else why not. Never raises."""
    problem = mount_problem("overlay", context.state_dir, context.run_dir, _attempt)
    return None if problem is None else ProbeResult(problem)


def _attempt(place: Path) -> None:
    (place / "lower").mkdir()
    fd = os.open(place / "lower", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try_overlay(place, fd)
    finally:
        os.close(fd)
