"""resolve: `shelf:NAME` is an image whose manifest lies in a directory, as `NAME.json`.

[plugins.shelf]
directory = "/srv/shelf"
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scow.api import (
    OCI_MANIFEST,
    Descriptor,
    Digest,
    Document,
    Located,
    NotFound,
    Platform,
    PluginContext,
    Reference,
    Resolved,
    Source,
    hookimpl,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """`[plugins.shelf]`."""

    directory: str = "/srv/shelf"


class Plugin:
    """The entry point `shelf` makes `shelf:` a transport: what may stand before a reference's colon."""

    def __init__(self, context: PluginContext) -> None:
        self._name = context.name
        self._directory = Path(context.config(Settings).directory)

    @hookimpl
    def resolve(self, reference: Reference, platform: Platform) -> Callable[[], Awaitable[Resolved]] | None:
        """Claim `shelf:NAME`; nothing is read before the run is awaited."""
        if not isinstance(reference, Located) or reference.transport != self._name:
            return None
        return partial(self._read, reference)

    async def _read(self, reference: Located) -> Resolved:
        path = self._directory / f"{reference.rest.replace('/', '_')}.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no such image: {reference}", hint=f"there is no {path}") from None
        manifest = Document(Descriptor(OCI_MANIFEST, Digest.of(data), len(data)), data)
        return Resolved(reference, manifest, Source(self._name, str(self._directory)))
