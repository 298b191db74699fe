"""fetch: blobs out of a directory (`sha256/…`), whatever registry the image comes from; what isn't there is fetched.

plugin_order = ["shelf"]

[plugins.shelf]
directory = "/srv/shelf"
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from scow.api import Descriptor, NotFound, PluginContext, Sink, Source, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """`[plugins.shelf]`."""

    directory: str = "/srv/shelf"


class Plugin:
    """Offers every blob. NotFound passes on to the next offer, so a cache needn't know what it has."""

    def __init__(self, context: PluginContext) -> None:
        self._directory = Path(context.config(Settings).directory)

    @hookimpl
    def fetch(self, source: Source, descriptor: Descriptor) -> Callable[[Sink], Awaitable[None]] | None:
        """Claim any blob of any source."""
        return partial(self._copy, descriptor)

    async def _copy(self, descriptor: Descriptor, sink: Sink) -> None:
        path = self._directory / descriptor.digest.algorithm / descriptor.digest.hex
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise NotFound(f"{path} is not on the shelf") from None
        with file:
            file.seek(sink.offset)
            while data := file.read(1 << 20):
                await sink.write(data)
