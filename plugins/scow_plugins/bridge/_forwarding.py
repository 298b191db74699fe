"""IPv4 forwarding, device by device, so that nobody else's packets are routed because of us.

The machine's own switch (`ip_forward`) is never touched. Where it is off, the devices with addresses get their own
switch turned on (an answer to a container comes in there), are noted, listed in the table's set `opened`, which
drops what isn't for a container, and are turned off again when the last endpoint has gone. Where it is on,
the administrator or another program wants routing, and nothing is to be done.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from ._links import addresses
from ._netlink import Netlink

_CONF = "/proc/sys/net/ipv4/conf"


def enabled() -> bool:
    """Is this machine a router already?"""
    return _read("all", "forwarding") == "1"


def closed_devices(route: Netlink, bridge: str, *, shared: bool) -> list[str]:
    """The devices with IPv4 addresses that don't forward.

    `shared`: another engine of scow's is at work, so that a device which forwards may do so only because of it,
    and must go on when that engine leaves.
    """
    found = []
    for index in {index for index, _ in addresses(route)}:
        try:
            name = socket.if_indextoname(index)
        except OSError:
            continue
        if name not in ("lo", bridge) and (shared or _read(name, "forwarding") == "0"):
            found.append(name)
    return sorted(found)


def open_devices(names: Iterable[str]) -> None:
    """Let devices forward."""
    for name in names:
        _write(name, "forwarding", "1")


def close_devices(names: Iterable[str]) -> None:
    """Devices forward no more, unless the whole machine does meanwhile."""
    if not enabled():
        for name in names:
            _write(name, "forwarding", "0")


def prepare_bridge(name: str) -> None:
    """The bridge forwards; 127.0.0.1 may be a source and a destination there; no IPv6, which nobody filters."""
    _write(name, "forwarding", "1")
    _write(name, "route_localnet", "1")
    path = f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6"
    if os.path.exists(path):
        _put(path, "1")


def _read(device: str, key: str) -> str:
    try:
        fd = os.open(f"{_CONF}/{device}/{key}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return os.read(fd, 16).decode().strip()
    finally:
        os.close(fd)


def _write(device: str, key: str, value: str) -> None:
    try:
        _put(f"{_CONF}/{device}/{key}", value)
    except FileNotFoundError:
        # The device is gone, and its settings with it.
        pass


def _put(path: str, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
