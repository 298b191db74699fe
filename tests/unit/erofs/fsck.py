"""fsck.erofs' opinion of an image."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_PROGRAM = shutil.which("fsck.erofs")
#: It goes into directories by recursion, and ends at some 1,500 of them with the usual stack.
_STACK = 'ulimit -s 65536; exec "$0" "$@"'


def complaints(path: Path, *options: str) -> str:
    """Empty when there are none, or where the program isn't installed. `--extract` reads every file's content."""
    if _PROGRAM is None:
        return ""
    done = subprocess.run(
        ["sh", "-c", _STACK, _PROGRAM, *options, str(path)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stdout + done.stderr
    return f"{done.returncode}: {said}" if done.returncode or "<E>" in said else ""
