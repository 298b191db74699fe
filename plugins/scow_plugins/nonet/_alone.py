"""A network namespace with loopback up and nothing else."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scow.api import Endpoint, Invalid, NetworkRequest
from scow.api.linux import inside_netns, new_netns

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1


@asynccontextmanager
async def alone(request: NetworkRequest) -> AsyncIterator[Endpoint]:
    """Hold the namespace for the body. Raises Invalid for what a network of nobody can't have."""
    if request.ports:
        raise Invalid(
            f"port {request.ports[0]} can't be published on the network 'none'", hint="use --network bridge, or no -p"
        )
    if request.ip is not None:
        raise Invalid(f"address {request.ip} can't be given on the network 'none'", hint="use --network bridge")
    netns = new_netns()
    try:
        with inside_netns(netns):
            _loopback_up()
        yield Endpoint(
            driver=request.driver,
            netns=netns,
            nameservers=request.nameservers,
            search=request.search,
            dns_options=request.dns_options,
        )
    finally:
        os.close(netns)


def _loopback_up() -> None:
    # struct ifreq: 16 bytes of name, then a union whose first 16 bits are the flags.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))
