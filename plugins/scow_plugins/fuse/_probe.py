"""Whether fuse-overlayfs works here: the program and the device are there, and two empty directories can be stacked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from scow.api import PluginContext, ProbeResult
from scow.api.layers import mount_problem
from scow_plugins.fuse._daemon import Stack, start

if TYPE_CHECKING:
    from scow_plugins.fuse import Config


def probe(context: PluginContext, config: Config) -> ProbeResult | None:
    """None when it works, else why not. Never raises."""
    # Looked at each time: a program can be removed, and a device be denied, between two boots.
    if shutil.which(config.program) is None:
        return ProbeResult(f"there is no program {config.program}; install fuse-overlayfs")
    if not os.path.exists("/dev/fuse"):
        return ProbeResult("there is no /dev/fuse; load the module `fuse`")

    def attempt(place: Path) -> None:
        for name in ("lower", "upper", "work"):
            (place / name).mkdir()
        start(config.program, Stack(place, (place / "lower",), place / "upper", place / "work")).leave()

    problem = mount_problem("fuse", context.state_dir, context.run_dir, attempt)
    return None if problem is None else ProbeResult(problem)
