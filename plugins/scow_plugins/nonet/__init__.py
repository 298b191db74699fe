"""The network of nobody: a network namespace in which there is only loopback."""

from __future__ import annotations

import os

from scow.api import Invalid, NetworkHeld, NetworkRequest, PluginContext, ProbeResult, hookimpl


class Plugin:
    """Claims network requests for the driver `none`. Its namespace goes with its last descriptor."""

    rests = True

    def __init__(self, context: PluginContext) -> None:
        for key in context.settings:
            raise Invalid(f"configuration: plugins.{context.name} has no key {key!r}", hint="it knows none")

    @hookimpl(trylast=True)
    def network(self, request: NetworkRequest) -> NetworkHeld | None:
        """Claim what asks for `none`."""
        if request.driver != "none":
            return None
        from ._alone import alone

        return alone(request)

    def probe(self) -> ProbeResult | None:
        """None for root on a kernel with network namespaces."""
        if os.geteuid() != 0:
            return ProbeResult("a network namespace needs root; run scow as root, or use --network host")
        if not os.path.exists("/proc/self/ns/net"):
            return ProbeResult("this kernel has no network namespaces; use --network host")
        return None
