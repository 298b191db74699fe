"""Where an engine keeps its things: two directories, and nothing outside them.

<root>/content/            the OCI image layout
<root>/state.db            tags, images, containers
<root>/<kind>/<plugin>/    what plugins keep (storage/overlay, network/bridge, …)
<root>/build/              what builders keep: cache.db (layers by key), caches/ (cache mounts), work/ (builds that run)
<root>/containers/<id>/    log, scratch (the writable layer), generated files
<run>/containers/<id>/     lock, journal, control socket of a running container
<run>/events.jsonl         what happened since boot
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_ROOT: Final = Path("/var/lib/scow")
DEFAULT_RUN: Final = Path("/run/scow")
#: By these an engine's directory is known.
_MARKS: Final = frozenset({"state.db", "events.jsonl"})


@dataclass(frozen=True, slots=True)
class Paths:
    """An engine's two directories."""

    root: Path
    run: Path

    @classmethod
    def of(cls, root: Path | None = None, run: Path | None = None) -> Paths:
        """The directories given, else SCOW_ROOT and SCOW_RUN, else the defaults.

        When only the root is given, the run directory lies in it, so that two engines never share one.
        """
        chosen = root or _from_env("SCOW_ROOT") or DEFAULT_ROOT
        fallback = DEFAULT_RUN if chosen == DEFAULT_ROOT else chosen / "run"
        return cls(chosen.absolute(), (run or _from_env("SCOW_RUN") or fallback).absolute())

    @property
    def instance(self) -> str:
        """Short and different for each root; empty for the default one. For names of kernel objects."""
        if self.root == DEFAULT_ROOT:
            return ""
        import hashlib

        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]

    @property
    def content(self) -> Path:
        return self.root / "content"

    @property
    def database(self) -> Path:
        return self.root / "state.db"

    @property
    def build(self) -> Path:
        return self.root / "build"

    @property
    def build_cache(self) -> Path:
        return self.build / "cache.db"

    @property
    def caches(self) -> Path:
        return self.build / "caches"

    @property
    def events(self) -> Path:
        return self.run / "events.jsonl"

    def container(self, container_id: str) -> Path:
        """What a container keeps over reboots."""
        return self.root / "containers" / container_id

    def rundir(self, container_id: str) -> Path:
        """What a running container needs while it runs."""
        return self.run / "containers" / container_id

    def make(self) -> None:
        """Create the directories, readable by their owner only. Raises Denied, OSError.

        What lies beneath has the same mode, so that nothing is open to all should somebody open the root itself.
        """
        from scow.sys.private import make_private

        make_private(self.root, _MARKS)
        make_private(self.run, _MARKS)
        for path in (self.root / "containers", self.run / "containers", self.build, self.caches):
            path.mkdir(exist_ok=True, mode=0o700)


def _from_env(name: str) -> Path | None:
    value = os.environ.get(name)
    return Path(value) if value else None
