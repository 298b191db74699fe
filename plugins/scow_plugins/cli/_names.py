"""Image names as they are shown: docker's short form, the full form, and the first line of a pull."""

from __future__ import annotations

from collections.abc import Collection

from scow.api import Invalid, Named, parse_reference
from scow_plugins.cli._units import printable


def pulling(name: str, transports: Collection[str]) -> str:
    """`latest: Pulling from library/nginx`; `transports` are the engine's."""
    reference = parse_reference(name, transports)
    if not isinstance(reference, Named):
        return f"Pulling from {printable(str(reference))}"
    return f"{reference.tag or reference.digest}: Pulling from {reference.path}"


def familiar(name: str) -> str:
    """A name in its shortest form; what is no name stays as it is."""
    try:
        return parse_reference(name).familiar
    except Invalid:
        return name


def full(name: str, transports: Collection[str]) -> str:
    """A name with registry and tag (`docker.io/library/nginx:latest`). Raises Invalid."""
    return str(parse_reference(name, transports))


def is_bare(name: str, transports: Collection[str]) -> bool:
    """Whether a name in a registry has neither tag nor digest, so that `latest` is meant."""
    try:
        reference = parse_reference(name, transports)
    except Invalid:
        return False
    return isinstance(reference, Named) and not name.rpartition("/")[2].count(":") and "@" not in name


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag in the short form; the tag is empty where there is none (`host:`, a digest)."""
    shown = familiar(name).partition("@")[0]
    repository, colon, tag = shown.rpartition(":")
    if not colon or not tag or "/" in tag:
        return shown, ""
    return repository, tag
