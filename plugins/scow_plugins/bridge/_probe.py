"""Can bridges, veth pairs and nf_tables be made here? Asked without leaving anything behind."""

from __future__ import annotations

import errno
import os
import struct

from . import _nft
from ._links import NEWLINK
from ._netlink import CREATE, EXCL, NETFILTER, ROUTE, Message, Netlink, attr, nest, text

_ADDRESS, _IFNAME, _LINKINFO, _KIND = 1, 3, 18, 1


def obstacle() -> str | None:
    """Why a bridge network can't be made here, in a sentence; None when it can."""
    if os.geteuid() != 0:
        return "making network devices needs root; run scow as root, or use --network none or host"
    try:
        with Netlink(ROUTE) as route, Netlink(NETFILTER) as filters:
            if not _nft.available(filters):
                return "this kernel has no nf_tables; load the module nf_tables, or use --network host"
            for kind in ("bridge", "veth"):
                if not _has_kind(route, kind):
                    return f"this kernel has no {kind} devices; load the module {kind}, or use --network host"
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            return "network devices may not be changed here (CAP_NET_ADMIN is missing); use --network host"
        return f"netlink doesn't work here ({error.strerror}); use --network host"
    return None


def _has_kind(route: Netlink, kind: str) -> bool:
    """Ask for a device that can't be: its address is too short. Only a kernel that knows the kind finds that out."""
    info = nest(_LINKINFO, text(_KIND, kind))
    body = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + text(_IFNAME, "scowprobe") + attr(_ADDRESS, b"\2") + info
    (error,) = route.attempt([Message(NEWLINK, CREATE | EXCL, body)])
    if error is not None and error.errno == errno.EPERM:
        raise error
    return error is None or error.errno != errno.EOPNOTSUPP
