"""What network takes and gives: published ports, and an endpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Interface, ip_address
from typing import Final, Protocol, runtime_checkable

from scow.errors import Invalid
from scow.model.journal import Journal

_NUMBERS: Final = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
_PORT: Final = re.compile(
    rf"(?:(?:\[(?P<ip6>[^\]]+)\]|(?P<ip4>[^:\[\]]*)):(?P<host>{_NUMBERS})?:|(?P<alone>{_NUMBERS})?:)?"
    rf"(?P<inner>{_NUMBERS})(?:/(?P<proto>[A-Za-z]+))?"
)


@dataclass(frozen=True, slots=True)
class PortMapping:
    """One published port. `host_port` 0 means a free one, chosen at start; empty `host_ip` means every address."""

    container_port: int
    host_port: int = 0
    protocol: str = "tcp"
    host_ip: str = ""
    #: Not 0: any free one from `host_port` up to this will do, chosen at start.
    host_last: int = 0

    @property
    def host(self) -> str:
        """The host's port, or range of ports to choose from, as the user wrote it."""
        return f"{self.host_port}-{self.host_last}" if self.host_last else str(self.host_port)

    def __str__(self) -> str:
        ip = f"[{self.host_ip}]" if ":" in self.host_ip else self.host_ip or "0.0.0.0"
        return f"{ip}:{self.host}->{self.container_port}/{self.protocol}"


def parse_ports(text: str) -> tuple[PortMapping, ...]:
    """Read Docker's `-p`: `[[ip:][host]:]container[/proto]`, each port a number or a range. Raises Invalid."""
    match = _PORT.fullmatch(text)
    if match is None:
        raise Invalid(f"published port {text!r} is not [[ip:][host-port]:]container-port[/tcp|udp]")
    ip = match["ip6"] or match["ip4"] or ""
    protocol = (match["proto"] or "tcp").lower()
    host = match["host"] or match["alone"] or ""
    if protocol not in ("tcp", "udp"):
        raise Invalid(f"published port {text!r}: protocol {protocol!r} can't be published", hint="use tcp or udp")
    if ip:
        _check_ip(ip, text)
    inner = _range(match["inner"], text)
    # `0:80` asks for a free port, as `:80` does.
    outer = _range(host, text) if host.strip("0") else (0,) * len(inner)
    if len(inner) == 1 < len(outer):
        return (PortMapping(inner[0], outer[0], protocol, ip, outer[-1]),)
    if len(inner) != len(outer):
        raise Invalid(f"published port {text!r}: the two ranges have different lengths")
    return tuple(PortMapping(i, o, protocol, ip) for i, o in zip(inner, outer, strict=True))


def _check_ip(ip: str, text: str) -> None:
    try:
        ip_address(ip)
    except ValueError:
        raise Invalid(f"published port {text!r}: {ip!r} is not an IP address") from None


def _range(text: str, whole: str) -> tuple[int, ...]:
    low, dash, high = text.partition("-")
    first, last = int(low), int(high if dash else low)
    if not 1 <= first <= last <= 65535:
        raise Invalid(f"published port {whole!r}: {text!r} is not a port or a range between 1 and 65535")
    return tuple(range(first, last + 1))


@dataclass(frozen=True, slots=True)
class NetworkRequest:
    """A container that wants to be reached. `hostname` and `name` are what other containers may call it."""

    driver: str
    container: str
    name: str
    hostname: str
    journal: Journal
    ports: tuple[PortMapping, ...] = ()
    #: Nameservers and search domains that the user gave; empty: those of the host.
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    ip: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place on a network.

    `netns` is a descriptor of the network namespace, closed by the driver; None means the host's own.
    `ports` are the published ports with the host ports really taken.
    """

    driver: str
    netns: int | None
    addresses: tuple[IPv4Interface | IPv6Interface, ...] = ()
    gateway: str = ""
    mac: str = ""
    interface: str = ""
    ports: tuple[PortMapping, ...] = ()
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    #: Lines for /etc/hosts beside localhost and the container's own name: (address, names).
    hosts: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())


@runtime_checkable
class Cautious(Protocol):
    """A network plugin that can say beforehand what on this machine will keep containers from the network."""

    def warnings(self, ports: tuple[PortMapping, ...]) -> tuple[str, ...]:
        """Sentences for a user who is about to start a container that publishes `ports`. Quick; changes nothing."""
        ...
