"""Which nameservers a container is told of: the host's, as far as a container can reach them (resolv.conf(5)).

The container's own loopback isn't the host's: what listens on 127.0.0.53 there is nobody here. Then those are taken
that systemd-resolved itself asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

RESOLV_CONF = Path("/etc/resolv.conf")
UPSTREAM = Path("/run/systemd/resolve/resolv.conf")
_SIZE_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Resolver:
    """The three things that resolv.conf says."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def parse(text: str) -> Resolver:
    """Read resolv.conf: all nameservers, the last search list, all options; other lines are ignored."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["search" | "domain", *domains]:
                search = tuple(domain for domain in domains if domain != ".")
            case ["options", *words]:
                options.extend(words)
    return Resolver(tuple(nameservers), search, tuple(options))


def reachable(servers: tuple[str, ...]) -> tuple[str, ...]:
    """Those that a container without IPv6 can reach: IPv4, not loopback, each once."""
    found = []
    for server in servers:
        try:
            address = IPv4Address(server)
        except ValueError:
            continue
        if not address.is_loopback and not address.is_unspecified and server not in found:
            found.append(server)
    return tuple(found)


def host_resolver(path: Path = RESOLV_CONF, upstream: Path = UPSTREAM) -> Resolver:
    """What the host uses, with the servers that a container can reach; possibly none."""
    own = _read(path)
    servers = reachable(own.nameservers)
    if not servers:
        behind = _read(upstream)
        return Resolver(reachable(behind.nameservers), own.search or behind.search, own.options)
    return Resolver(servers, own.search, own.options)


def host_nameservers() -> tuple[str, ...]:
    """The host's nameservers that a container can reach."""
    return host_resolver().nameservers


def _read(path: Path) -> Resolver:
    try:
        with path.open("rb") as file:
            return parse(file.read(_SIZE_MAX).decode(errors="replace"))
    except OSError:
        return Resolver()
