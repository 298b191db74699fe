"""Which images an archive holds, for `load`: each with a reference, by its position, and its names."""

from __future__ import annotations

from pathlib import Path

from scow.api import Contained, Corrupt, Invalid, Located, parse_named

from . import _docker, _layout
from ._files import open_files
from ._place import Place


def contents(transport: str, path: Path) -> tuple[Contained, ...] | None:
    """The images of an archive of this transport's format; None when it is of another. Raises Corrupt."""
    try:
        files = open_files(path, directory=False)
    except Corrupt:
        return None
    place = Place(transport, path, None)
    docker = files.find("manifest.json") is not None
    if transport == "docker-archive":
        names = [tuple(item.repo_tags or ()) for item in _docker.items_of(files, place)] if docker else None
    elif docker or files.find("index.json") is None:
        names = None
    else:
        names = [_layout.names_of(entry)[:1] for entry in _layout.entries_of(files, place)]
    if names is None:
        return None
    return tuple(
        Contained(Located(transport, f"{path}:@{position}"), tuple(name for name in each if _is_name(name)))
        for position, each in enumerate(names)
    )


def _is_name(text: str) -> bool:
    """A whole name: of an OCI archive's mere tag (`latest`) nobody knows whose it is."""
    try:
        named = parse_named(text)
    except Invalid:
        return False
    return named.tag is not None and (":" in text.rpartition("/")[2] or "/" in text)
