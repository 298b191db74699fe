"""network: a wrapper that gives every container some names of yours, in its /etc/hosts.

[plugins.names]
hosts = { "192.0.2.10" = ["db", "db.internal"] }
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from scow.api import Endpoint, NetworkHeld, NetworkRequest, PluginContext, hookimpl


@dataclass(frozen=True, slots=True)
class Settings:
    """`[plugins.names]`."""

    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Plugin:
    """Goes around every network driver."""

    def __init__(self, context: PluginContext) -> None:
        self._hosts = tuple(context.config(Settings).hosts.items())

    @hookimpl(wrapper=True)
    def network(self, request: NetworkRequest) -> Generator[None, NetworkHeld | None, NetworkHeld | None]:
        """The endpoint is the driver's; only its list of hosts grows."""
        held = yield
        return None if held is None else self._named(held)

    @asynccontextmanager
    async def _named(self, held: NetworkHeld) -> AsyncIterator[Endpoint]:
        async with held as endpoint:
            yield replace(endpoint, hosts=(*endpoint.hosts, *self._hosts))
