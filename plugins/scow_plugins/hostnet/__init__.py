"""The host network: the container shares the machine's own network namespace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scow.api import Endpoint, Invalid, NetworkHeld, NetworkRequest, PluginContext, hookimpl


class Plugin:
    """Claims network requests for the driver `host`. Works on every machine, holds nothing, leaves nothing."""

    rests = True

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        for key in context.settings:
            raise Invalid(f"configuration: plugins.{context.name} has no key {key!r}", hint="it knows none")

    @hookimpl(trylast=True)
    def network(self, request: NetworkRequest) -> NetworkHeld | None:
        """Claim what asks for `host`."""
        return _shared(self._context, request) if request.driver == "host" else None


@asynccontextmanager
async def _shared(context: PluginContext, request: NetworkRequest) -> AsyncIterator[Endpoint]:
    if request.ip is not None:
        raise Invalid(
            f"address {request.ip} can't be given on the network 'host'", hint="use --network bridge, or leave it out"
        )
    if request.ports:
        # As Docker does: a warning, for the container's ports are the host's anyway.
        context.log.warning("network.ports_discarded", reason="published ports are discarded on the host network")
    yield Endpoint(
        driver=request.driver,
        netns=None,
        nameservers=request.nameservers,
        search=request.search,
        dns_options=request.dns_options,
    )
