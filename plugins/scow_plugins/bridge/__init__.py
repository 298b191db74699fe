"""The bridge network: a private subnet behind a bridge, masqueraded, with published ports (docs/design/network.md).

Rule: claims and settings only; netlink is spoken by the modules beside this one, loaded after a claim said yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from scow.api import Invalid, NetworkHeld, NetworkRequest, PluginContext, PortMapping, ProbeResult, hookimpl

if TYPE_CHECKING:
    from ._network import Network

_NAME_MAX = 15


@dataclass(frozen=True, slots=True)
class Settings:
    """`[plugins.bridge]` in the configuration file."""

    #: The subnet, such as 10.88.0.0/20; empty: the first of `pools` that meets nothing of this machine's.
    subnet: str = ""
    #: Where a subnet is taken from when none is given, and how long its prefix is.
    pools: tuple[str, ...] = ("10.201.0.0/16", "172.28.0.0/14", "192.168.192.0/18")
    prefix: int = 20
    #: The bridge's name, at most 15 characters; empty: scow0, or scow-<instance>.
    name: str = ""
    #: In bytes; 0: that of the device which the default route leaves by.
    mtu: int = 0
    #: The host's address that ports are published on when `-p` names none.
    publish_ip: str = "0.0.0.0"
    #: Written into containers when the host has no nameserver that a container could reach; Docker's choice.
    fallback_nameservers: tuple[str, ...] = ("8.8.8.8", "8.8.4.4")
    #: Where Docker's, Podman's or firewalld's rules would drop what containers send: add rules that accept it ("open"),
    #: only say so ("report", as with an administrator's own rules), or neither ("ignore").
    firewall: Literal["open", "report", "ignore"] = "open"
    #: Seconds that bridge and rules stay after the last container has gone; never longer than an idle launcher.
    linger: float = 60.0


class Plugin:
    """Claims network requests for the driver `bridge`."""

    rests = True

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        settings = context.config(Settings)
        self._settings = replace(settings, linger=min(settings.linger, context.idle))
        name = self._settings.name or (f"scow-{context.instance}" if context.instance else "scow0")
        if not 0 < len(name) <= _NAME_MAX or not name.isascii() or "/" in name or name.split() != [name]:
            raise Invalid(f"plugins.bridge.name: {name!r} can't be a device's name", hint="at most 15 plain characters")
        self._name = name
        self._table = f"scow-{context.instance}" if context.instance else "scow"
        self._shared: Network | None = None

    @hookimpl
    def network(self, request: NetworkRequest) -> NetworkHeld | None:
        """Claim what asks for `bridge`."""
        if request.driver != "bridge":
            return None
        from ._endpoint import connected

        return connected(self._network, self._settings, request)

    def probe(self) -> ProbeResult | None:
        """None when bridges, veth pairs and nf_tables can be made here."""
        from ._probe import obstacle

        reason = obstacle()
        return None if reason is None else ProbeResult(reason)

    def reclaim(self, handle: dict[str, str | int]) -> None:
        """Take down the endpoint of a supervisor that died, and the bridge if nobody else uses it."""
        self._network.reclaim(str(handle["veth"]))

    def warnings(self, ports: Sequence[PortMapping]) -> tuple[str, ...]:
        """What on this machine keeps containers from the network, in sentences."""
        try:
            return tuple(self._network.obstacles(published=bool(ports)))
        except OSError:
            return ()  # no netlink for us: `probe` says so

    @property
    def _network(self) -> Network:
        from ._network import Network

        if self._shared is None:
            self._shared = Network(self._context.state_dir, self._settings, self._name, self._table)
        return self._shared
