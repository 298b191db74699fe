"""A network with nothing in it: `scow run --network null`. Claims only; the work is in `_nowhere`."""

from __future__ import annotations

import os

from scow.api import NetworkHeld, NetworkRequest, PluginContext, ProbeResult, hookimpl


class Plugin:
    """Claims network requests for the driver `null`."""

    def __init__(self, context: PluginContext) -> None:
        self._name = context.name

    @hookimpl(trylast=True)
    def network(self, request: NetworkRequest) -> NetworkHeld | None:
        """Claim what asks for us. `trylast`: a stranger's plugin isn't picked before scow's own unless asked for."""
        if request.driver != self._name:
            return None
        from scow_null._nowhere import nowhere

        return nowhere(request)

    def probe(self) -> ProbeResult | None:
        """None where a network namespace can be made."""
        return None if os.geteuid() == 0 else ProbeResult("a network namespace needs root; run scow as root")
