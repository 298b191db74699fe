"""A network namespace whose only device is loopback; it goes with its descriptor, so there is nothing to journal."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scow.api import Endpoint, NetworkRequest, Unsupported
from scow.api.linux import inside_netns, new_netns

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # netdevice(7)


@asynccontextmanager
async def nowhere(request: NetworkRequest) -> AsyncIterator[Endpoint]:
    """Hold an empty place for the body. Raises Unsupported for a published port."""
    if request.ports:
        raise Unsupported(f"network null can't publish port {request.ports[0]}", hint="use --network bridge, or no -p")
    netns = new_netns()
    try:
        with inside_netns(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
        yield Endpoint(driver=request.driver, netns=netns)
    finally:
        os.close(netns)
