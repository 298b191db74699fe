"""What a network plugin says beforehand of this machine, for run, build and info to pass on."""

from __future__ import annotations

import structlog

from scow.engine.core import Core
from scow.model.network import Cautious, PortMapping


def network_warnings(core: Core, name: str, ports: tuple[PortMapping, ...] = ()) -> tuple[str, ...]:
    """The warnings of a network plugin; none from one that has none to give, or that fails: nothing depends on them."""
    instance = core.registry.get("network", name).instance
    if not isinstance(instance, Cautious):
        return ()
    try:
        return tuple(instance.warnings(ports))
    except Exception as error:  # noqa: BLE001 - the border to a stranger's code
        structlog.get_logger("scow").warning(
            "network.warnings.failed", plugin=name, reason=f"{type(error).__name__}: {error}"
        )
        return ()
