"""The host's ports: taken by binding them, held as long as the container is there.

A bound socket is what keeps every other program from the port, and what finds out that another one has it. Packets
for the port are redirected before they reach the socket; the few that come while rules are being made are
dropped by a filter on it, so that a client tries again instead of talking to nobody.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from scow.api import Denied, Exhausted, Exists, Invalid, PortMapping, Unsupported

from ._state import Span

_KINDS: Final = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_SO_ATTACH_FILTER: Final = 26
#: SCM_MAX_FD: so many descriptors fit into one message.
_MESSAGE_MAX: Final = 253
#: Up to here the sockets stay in our own table, where `ss -p` can see whose they are.
_PLAIN_MAX: Final = 64


@contextmanager
def reserved(ports: Sequence[PortMapping], publish_ip: str) -> Iterator[tuple[PortMapping, ...]]:
    """Hold all host ports for the body; gives the mappings with real addresses and ports.

    Raises Exists (taken), Unsupported (IPv6), Invalid (not an address of this machine, a port twice), Denied,
    Exhausted (no free port).
    """
    held: list[socket.socket] = []
    parked: list[socket.socket] = []
    try:
        taken = []
        for mapping in ports:
            mapping = replace(mapping, host_ip=_address(mapping, publish_ip))
            sock = _bind_one(mapping)
            held.append(sock)
            taken.append(replace(mapping, host_port=sock.getsockname()[1], host_last=0))
            if len(held) == _MESSAGE_MAX:
                _park(held, parked)
        if len(taken) > _PLAIN_MAX:
            _park(held, parked)
        yield tuple(taken)
    finally:
        for sock in (*held, *parked):
            sock.close()


def _address(mapping: PortMapping, publish_ip: str) -> str:
    text = mapping.host_ip or publish_ip
    if ":" in text:
        raise Unsupported(
            f"port {mapping} can't be published: bridge knows no IPv6", hint="give an IPv4 address, or none"
        )
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise Invalid(f"port {mapping}: {text!r} is not an IPv4 address") from None


def _bind_one(mapping: PortMapping) -> socket.socket:
    """Take the port, or the first one of a range that nobody has (as docker -p 8000-8010:80)."""
    for port in range(mapping.host_port, mapping.host_last):
        try:
            return _bind(replace(mapping, host_port=port, host_last=0))
        except Exists:
            continue
    if not mapping.host_last:
        return _bind(mapping)
    try:
        return _bind(replace(mapping, host_port=mapping.host_last, host_last=0))
    except Exists:
        raise Exists(
            f"no port of {mapping.host}/{mapping.protocol} is free on the host's address {mapping.host_ip}",
            hint="publish a wider range, or stop what uses them",
        ) from None


def _bind(mapping: PortMapping) -> socket.socket:
    kind = _KINDS.get(mapping.protocol)
    if kind is None:
        raise Unsupported(f"port {mapping}: protocol {mapping.protocol!r} can't be published", hint="use tcp or udp")
    sock = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        _drop_everything(sock)
        if kind == socket.SOCK_STREAM:
            # Connections of an earlier server that wait in TIME_WAIT don't keep us from the port.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((mapping.host_ip, mapping.host_port))
        if kind == socket.SOCK_STREAM:
            # With SO_REUSEADDR only a listening socket has the port for itself.
            sock.listen(1)
    except OSError as error:
        sock.close()
        raise _explain(mapping, error) from None
    return sock


def _explain(mapping: PortMapping, error: OSError) -> Exception:
    port = f"port {mapping.host_port}/{mapping.protocol}"
    match error.errno:
        case errno.EADDRINUSE if mapping.host_port == 0:
            return Exhausted(f"no free {mapping.protocol} port is left on the host's address {mapping.host_ip}")
        case errno.EADDRINUSE:
            return Exists(
                f"{port} is already in use on the host's address {mapping.host_ip}",
                hint=f"publish another one, as in -p 0:{mapping.container_port}, or stop what uses it",
            )
        case errno.EADDRNOTAVAIL:
            return Invalid(
                f"{port} can't be published on {mapping.host_ip}: this machine has no such address",
                hint="leave the address out to publish on every one",
            )
        case errno.EACCES | errno.EPERM:
            return Denied(f"{port} can't be taken: {error.strerror}")
        case errno.EMFILE | errno.ENFILE:
            return Exhausted(f"{port} can't be taken: {error.strerror}")
    return error


def _drop_everything(sock: socket.socket) -> None:
    """Attach a filter of one instruction, `ret #0`: the socket never sees a packet (socket(7), SO_ATTACH_FILTER)."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(program)))


def _park(held: list[socket.socket], parked: list[socket.socket]) -> None:
    """Move descriptors into a socket pair's queue: thousands of ports needn't fit under RLIMIT_NOFILE."""
    if not held:
        return
    if not parked:
        parked.extend(socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM))
        parked[0].setblocking(False)
    socket.send_fds(parked[0], [b"p"], [sock.fileno() for sock in held])
    while held:
        held.pop().close()


def spans(ports: Sequence[PortMapping]) -> list[Span]:
    """Consecutive ports joined: two thousand become one entry. The order is kept."""
    found: list[Span] = []
    for port in ports:
        last = found[-1] if found else None
        if (
            last is not None
            and (last.protocol, last.host_ip) == (port.protocol, port.host_ip)
            and (last.host_port + last.count, last.container_port + last.count) == (port.host_port, port.container_port)
        ):
            found[-1] = Span(last.protocol, last.host_ip, last.host_port, last.container_port, last.count + 1)
        else:
            found.append(Span(port.protocol, port.host_ip, port.host_port, port.container_port, 1))
    return found
