"""Whether a way of mounting works on this machine: tried once for real, remembered until the next boot."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from scow.errors import ScowError
from scow.layers.stack import overlay, short_name


def mount_problem(name: str, state_dir: Path, run_dir: Path, attempt: Callable[[Path], None]) -> str | None:
    """None when `attempt`, which gets an empty directory on the state's file system, succeeds; else why not.

    Never raises.
    """
    if os.geteuid() != 0:
        return f"{name} mounts need root"
    try:
        memory = run_dir / f"{name}-works"
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        # Another state directory may be on another file system.
        known = f"{boot}{state_dir}"
        if memory.exists() and memory.read_text() == known:
            return None
        _try(state_dir, attempt)
        run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        memory.touch(0o600)
        memory.write_text(known)
    except ScowError as error:
        return error.message + (f" ({error.hint})" if error.hint else "")
    except OSError as error:
        return f"{name} can't be tried in {state_dir}: {error.strerror or error}"
    return None


def _try(state_dir: Path, attempt: Callable[[Path], None]) -> None:
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    trial = Path(tempfile.mkdtemp(prefix="probe-", dir=state_dir))
    try:
        attempt(trial)
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def try_overlay(place: Path, lower: int) -> None:
    """Mount an overlay of the directory `lower` with a writable layer in `place`. Raises ScowError, OSError."""
    fds = []
    try:
        for name in ("upper", "work"):
            (place / name).mkdir()
            fds.append(os.open(place / name, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        upper, work = map(short_name, fds)
        os.close(overlay([short_name(lower)], [("upperdir", upper), ("workdir", work)]))
    finally:
        for fd in fds:
            os.close(fd)
