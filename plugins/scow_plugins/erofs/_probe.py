"""Whether EROFS works here: a tiny image is mounted for real, with an overlay on top."""

from __future__ import annotations

import os
from pathlib import Path

from scow.api import PluginContext, ProbeResult
from scow.api.layers import detached, mount_problem, try_overlay, write_empty_image
from scow_plugins.erofs._layer import mount_image


def probe(context: PluginContext) -> ProbeResult | None:
    """None when it works, else why not. Never raises."""
    problem = mount_problem("erofs", context.state_dir, context.run_dir, _attempt)
    return None if problem is None else ProbeResult(problem)


def _attempt(place: Path) -> None:
    path = place / "empty"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_empty_image(fd)
    finally:
        os.close(fd)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mounted = mount_image(fd)
    finally:
        os.close(fd)
    with detached(mounted) as lower:
        try_overlay(place, lower)
