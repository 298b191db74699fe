"""Containers of `host:` see the whole machine but for the engine's own directories, and what is in them."""

from __future__ import annotations

import os
from pathlib import Path

from scow.layers.attributes import read_attributes, write_attributes
from scow.layers.marks import mark_opaque


def hide_engine(upper: Path, engine_dirs: tuple[Path, ...]) -> None:
    """Make each of `engine_dirs` an empty opaque directory of a new writable layer. Raises OSError."""
    for directory in engine_dirs:
        real = Path(os.path.realpath(directory))
        if real.is_dir() and real != Path("/"):
            _hide(upper, real)


def _hide(upper: Path, real: Path) -> None:
    made: list[tuple[Path, Path]] = []
    for original in [*reversed(real.parents), real][1:]:
        copy = upper / original.relative_to("/")
        if not copy.exists():
            copy.mkdir()
            made.append((copy, original))
    fd = os.open(upper / real.relative_to("/"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mark_opaque(fd)
    finally:
        os.close(fd)
    # Deepest first: making a directory changes its parent's times.
    for copy, original in reversed(made):
        take_metadata(copy, original)


def take_metadata(copy: Path, original: Path) -> None:
    """Give a directory the owner, mode, times and attributes of another one. Raises OSError."""
    old = os.open(original, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        new = os.open(copy, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            write_attributes(new, read_attributes(os.fstat(old), old))
        finally:
            os.close(new)
    finally:
        os.close(old)
