"""The network that all containers of an engine share: bridge, subnet, leases and rules, changed under one lock.

What the kernel has is compared with what the state file says whenever somebody joins, and made again when it is
missing (`nft flush ruleset`, a deleted bridge): the file knows all that is needed for that.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import zlib
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import msgspec

from scow.api import Conflict, Unsupported
from scow.api.linux import inside_netns

from . import Settings, _forwarding, _ipam, _links, _nft, _rules
from ._conntrack import forget_earlier, forget_redirected
from ._dns import host_nameservers
from ._netlink import NETFILTER, ROUTE, Netlink, NetlinkError
from ._passage import Passage
from ._state import Lease, Span, State, Store

_ALIAS = "scow"
_UNFINISHED = "scow unfinished"
_SUBNET_TRIES = 5
#: At most 100 ms in all.
_SETTLE_TRIES = 200
_SETTLE_PAUSE = 0.0005


class Network:
    """One engine's bridge. Methods block for a few milliseconds; each takes the lock itself."""

    def __init__(self, directory: Path, settings: Settings, name: str, table: str) -> None:
        self.directory = directory
        self._settings = settings
        self._name = name
        self._table = table
        self._store = Store(directory)
        self._filters_socket: Netlink | None = None
        self._filters_process = 0
        self.passage = Passage(name, table, settings.firewall, self._store)
        #: Processes that were forked to sweep (see _sweeper).
        self.sweepers: list[int] = []

    def __del__(self) -> None:
        if self._filters_socket is not None and self._filters_process == os.getpid():
            self._filters_socket.close()

    @property
    def linger(self) -> float:
        """Seconds for which an idle network is kept."""
        return self._settings.linger

    def described(self) -> str:
        """All that another process needs to have the same network; see `Network.from_description`."""
        return msgspec.json.encode([str(self.directory), self._name, self._table, self._settings]).decode()

    @classmethod
    def from_description(cls, text: str) -> Network:
        """The network that `described` tells of."""
        directory, name, table, settings = msgspec.json.decode(text, type=tuple[str, str, str, Settings])
        return cls(Path(directory), settings, name, table)

    def obstacles(self, *, published: bool) -> list[str]:
        """What keeps packets of containers from passing this machine's firewalls, in sentences, with a way out."""
        # Not the socket that is kept: whoever asks doesn't join, and would close it behind others' changes at its end.
        with Netlink(NETFILTER) as filters:
            return self.passage.obstacles(filters, published=published)

    def _filters(self) -> Netlink:
        """The netfilter socket, opened once in each process and kept open.

        Closing one waits until nf_tables has freed what anybody on this machine has deleted just now: 5 to 15 ms.
        """
        if self._filters_socket is None or self._filters_process != os.getpid():
            if self._filters_socket is not None:
                # The other process's socket: its number may be something else here by now.
                self._filters_socket.detach()
            self._filters_socket, self._filters_process = Netlink(NETFILTER), os.getpid()
        return self._filters_socket

    # Joining and leaving ---------------------------------------------------------------------------------------------

    def join(
        self, container: str, veth: str, netns: int, ports: Sequence[Span], wanted: IPv4Address | None
    ) -> tuple[IPv4Interface, IPv4Address]:
        """Lease an address, put `eth0` into a network namespace, publish ports; gives address and gateway.

        What was begun when this raises is undone by `leave`. Raises Exhausted, Exists, Invalid, Conflict.
        """
        filters = self._filters()
        with self._store.locked() as state, Netlink(ROUTE) as route:
            bridge = self._bridge(state, route)
            subnet = state.network()
            last = IPv4Address(state.last) if state.last else None
            address = _ipam.allocate(subnet, state.leased(), last, wanted)
            lease = Lease(container, str(address), list(ports))
            _drop_clashes(state, lease)
            state.leases[veth], state.last = lease, str(address)
            self._store.save(state)
            route.send(_links.create_veth(veth, bridge.index, netns, address, bridge.mtu))
            _configure(netns, IPv4Interface((address, subnet.prefixlen)), _ipam.gateway_of(subnet))
            self._rules(state, filters, lease)
            self._forwarding(state, route, filters)
            self.passage.open(state, route, filters)
            forget_earlier(filters, lease)
            _settle(route, self._name, veth, address)
        return IPv4Interface((address, subnet.prefixlen)), _ipam.gateway_of(subnet)

    def leave(self, veth: str, *, gone: bool = False) -> bool:
        """Undo `join`, also a half-done one. True when the network is idle now, so that somebody should sweep.

        Afterwards address and ports may be used by somebody else at once. The veth pair itself goes with its
        network namespace: deleting it takes 10 to 40 ms. `gone`: nobody will close the namespace, delete it now.
        """
        with self._store.locked() as state:
            lease = state.leases.pop(veth, None)
            with Netlink(ROUTE) as route:
                link = _links.find_link(route, veth)
                if link is not None:
                    # It may go by itself at this moment: the kernel removes it behind its namespace.
                    route.attempt([_links.delete_link(veth) if gone else _links.detach_port(link.index)])
            if lease is None:
                return not state.leases
            if lease.ports:
                with self.passage.own_change(state, self._filters()):
                    self._unpublish(self._filters(), lease)
                forget_redirected(self._filters(), [lease])
            state.idle_since = now() if not state.leases else 0
            self._store.save(state)
            return not state.leases

    def reclaim(self, veth: str) -> None:
        """Undo what a dead supervisor left; the bridge goes too when nobody uses it."""
        if self.leave(veth, gone=True):
            self.sweep(0)

    def sweep(self, linger: float) -> float:
        """Remove bridge and rules if nobody has used them for `linger` seconds.

        Gives the seconds after which it would be worth while to try again, 0 when there is nothing left to do.
        """
        with self._store.locked() as state:
            return self.sweep_locked(state, linger)

    def retire(self, linger: float, lock: int) -> float:
        """`sweep` for the sweeper, which gives up `lock` together with its task: nobody may leave in between."""
        with self._store.locked() as state:
            rest = self.sweep_locked(state, linger)
            if rest <= 0:
                os.close(lock)
            return rest

    def sweep_locked(self, state: State, linger: float) -> float:
        """`sweep` for one who has the lock."""
        if state.leases:
            return 0
        rest = state.idle_since + linger - now()
        if rest > 0:
            return rest
        filters = self._filters()
        with Netlink(ROUTE) as route:
            bridge = _links.find_link(route, self._name)
            if bridge is not None and _is_ours(bridge):
                doomed = [*_links.ports_of(route, bridge.index), bridge]
                route.attempt([_links.delete_link(link.name) for link in doomed])
            if _nft.table_comment(filters, self._table) is not None:
                _nft.commit(filters, [_nft.delete_table(self._table)])
            self.passage.close(state, filters)
            self._restore(state, filters)
        return 0

    # The parts -------------------------------------------------------------------------------------------------------

    def _own_link(self, route: Netlink) -> _links.Link | None:
        """Our bridge, or None. Raises Conflict for somebody else's device of that name."""
        link = _links.find_link(route, self._name)
        if link is not None and not _is_ours(link):
            raise Conflict(
                f"there is a device named {self._name} that isn't scow's",
                hint="set plugins.bridge.name to another name",
            )
        return link

    def _bridge(self, state: State, route: Netlink) -> _links.Link:
        """The bridge, made if it isn't there. Unused, it is made anew when the settings have changed."""
        link = self._own_link(route)
        if link is not None and link.up and link.alias == _alias(state) and self._wanted(state):
            return link
        if link is not None:
            if state.leases and link.alias != _UNFINISHED:
                # Containers are on it: settings count from the next time on.
                if not link.up:
                    route.send(_links.set_up(link.index))
                return link
            route.send(_links.delete_link(self._name))
        return self._create(state, route)

    def _wanted(self, state: State) -> bool:
        return not self._settings.subnet or state.subnet == self._settings.subnet

    def _create(self, state: State, route: Netlink) -> _links.Link:
        """A new bridge with its address. The alias says when it is complete, so that half of one isn't taken for it."""
        mtu = self._settings.mtu or _links.uplink_mtu(route)
        for _ in range(_SUBNET_TRIES):
            subnet = self._subnet(state, route)
            gateway = _ipam.gateway_of(subnet)
            self._create_device(route, gateway, mtu)
            link = self._own_link(route)
            assert link is not None
            _forwarding.prepare_bridge(self._name)
            route.send(_links.add_address(link.index, IPv4Interface((gateway, subnet.prefixlen))))
            if state.leases or not self._lost_race(route, link.index, subnet):
                break
            route.send(_links.delete_link(self._name))
        else:
            raise Conflict(f"another engine took {subnet} at the same moment", hint="try again")
        state.subnet = str(subnet)
        route.send(_links.describe(self._name, _alias(state)))
        # Somebody deleted the bridge under running containers: their ends are still there.
        route.attempt([_links.enslave(veth, link.index) for veth in state.leases])
        return link

    def _create_device(self, route: Netlink, gateway: IPv4Address, mtu: int) -> None:
        try:
            # One system call, which no signal divides: never a bridge without an alias.
            route.send(_links.create_bridge(self._name, gateway, mtu), _links.describe(self._name, _UNFINISHED))
        except NetlinkError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise Unsupported("this kernel can't make bridges", hint="use --network host or none") from None
            raise

    def _lost_race(self, route: Netlink, index: int, subnet: IPv4Network) -> bool:
        """Has a device with a lower index the same addresses now? Engines with other roots have other locks."""
        return any(other < index and address.network.overlaps(subnet) for other, address in _links.addresses(route))

    def _subnet(self, state: State, route: Netlink) -> IPv4Network:
        """The subnet to use: the configured one, else the last one, else a new one. Raises Conflict, Exhausted."""
        taken = [route_.destination for route_ in _links.routes(route)]
        taken += [address.network for _, address in _links.addresses(route)]
        if self._settings.subnet:
            subnet = _ipam.read_subnet(self._settings.subnet)
            if clash := _ipam.collides(subnet, taken):
                raise Conflict(
                    f"plugins.bridge.subnet {subnet} overlaps {clash}, which this machine reaches otherwise",
                    hint="set another one, or none",
                )
            return subnet
        taken += [IPv4Network(server) for server in host_nameservers()]
        if state.leases or (state.subnet and _ipam.collides(state.network(), taken) is None):
            return state.network()
        turn = zlib.crc32(self._table.encode()) if self._table != "scow" else 0
        return _ipam.choose(_ipam.candidates(self._settings.pools, self._settings.prefix, turn), taken)

    def _rules(self, state: State, filters: Netlink, lease: Lease) -> None:
        """Publish a lease's ports; the whole table is made when it isn't there as it should be."""
        if _nft.table_comment(filters, self._table) == _rules.comment(self._name, state.network()):
            try:
                with self.passage.own_change(state, filters):
                    _nft.commit(filters, _rules.publish(self._table, [lease]))
            except NetlinkError:
                # An element of a supervisor that died, or a chain that somebody flushed: make all of it anew.
                self._rebuild(state, filters)
        else:
            self._rebuild(state, filters)

    def _rebuild(self, state: State, filters: Netlink) -> None:
        messages = [*_rules.base(self._table, self._name, state.network())]
        messages += _rules.publish(self._table, state.leases.values())
        messages += _rules.open_devices(self._table, state.opened)
        if state.accepted is not None:
            messages += _rules.accept_devices(self._table, self._name, state.accepted)
        _nft.commit(filters, messages)

    def _unpublish(self, filters: Netlink, lease: Lease) -> None:
        try:
            _nft.commit(filters, _rules.unpublish(self._table, [lease]))
        except NetlinkError as error:
            # Gone already (flushed), or never put there: then one by one, whatever is left.
            if error.errno != errno.ENOENT:
                raise
            for span in lease.ports:
                for n in range(span.count):
                    one = Span(span.protocol, span.host_ip, span.host_port + n, span.container_port + n, 1)
                    self._unpublish_one(filters, Lease(lease.container, lease.address, [one]))

    def _unpublish_one(self, filters: Netlink, lease: Lease) -> None:
        try:
            _nft.commit(filters, _rules.unpublish(self._table, [lease]))
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise

    def _forwarding(self, state: State, route: Netlink, filters: Netlink) -> None:
        if _forwarding.enabled():
            if state.opened:
                # Somebody made this machine a router meanwhile; whatever they forward is none of our business.
                _nft.commit(filters, _rules.close_devices(self._table, state.opened))
                state.opened = []
                self._store.save(state)
            return
        shared = bool(self._other_engines(filters))
        closed = _forwarding.closed_devices(route, self._name, shared=shared)
        fresh = [name for name in closed if name not in state.opened]
        if fresh:
            state.opened = [*state.opened, *fresh]
            self._store.save(state)
            _nft.commit(filters, _rules.open_devices(self._table, fresh))
        _forwarding.open_devices(closed)

    def _restore(self, state: State, filters: Netlink) -> None:
        """Turn off what we turned on, unless another engine needs it; the last one out turns it off."""
        opened, state.opened = state.opened, []
        if opened and not self._other_engines(filters):
            _forwarding.close_devices(opened)
            # Engines with other roots have other locks. One that came meanwhile has made its table before it
            # looked at the devices, so that either we see it here, or it turns them on after us.
            if self._other_engines(filters):
                _forwarding.open_devices(opened)
        self._store.save(state)

    def _other_engines(self, filters: Netlink) -> list[str]:
        names = _nft.tables(filters)
        return [name for name in names if name != self._table and (name == "scow" or name.startswith("scow-"))]


def _configure(netns: int, address: IPv4Interface, gateway: IPv4Address) -> None:
    """Inside the namespace: loopback and eth0 up, with address and default route."""
    with inside_netns(netns), Netlink(ROUTE) as route:
        eth0 = socket.if_nametoindex(_links.PEER_NAME)
        loopback = socket.if_nametoindex("lo")
        route.send(
            _links.set_up(loopback),
            _links.add_address(eth0, address),
            _links.set_up(eth0),
            _links.default_route(eth0, gateway),
        )


def _is_ours(link: _links.Link) -> bool:
    return link.kind == "bridge" and link.alias.startswith(_ALIAS)


def _alias(state: State) -> str:
    return f"{_ALIAS} {state.subnet}"


def _settle(route: Netlink, bridge: str, veth: str, address: IPv4Address) -> None:
    """Wait until bridge and port pass packets, and tell the bridge which address lives behind the port.

    The kernel turns a new carrier into an operational state in a work queue of its own; until then the port forwards
    nothing, and a bridge that had no port drops what the host sends. Asking for the link hurries it (since Linux 6.8).
    Otherwise a container's first packets are lost, and TCP sends the next one a second later.
    """
    port = _running(route, veth)
    if port is not None:
        # Neither is vital: the bridge enables its port and learns by itself.
        route.attempt([_links.forward_port(port.index), _links.learn(port.index, address)])
    _running(route, bridge)


def _running(route: Netlink, name: str) -> _links.Link | None:
    """A device once it is operational, or after a tenth of a second."""
    for _ in range(_SETTLE_TRIES):
        link = _links.find_link(route, name)
        if link is None or link.running:
            break
        time.sleep(_SETTLE_PAUSE)
    return link


def _drop_clashes(state: State, lease: Lease) -> None:
    """Forget the ports of leases that want the same ones: we hold the sockets, so their supervisors are dead."""
    mine = {port for span in lease.ports for port in _points(span)}
    if not mine:
        return
    for veth, other in state.leases.items():
        kept = [span for span in other.ports if mine.isdisjoint(_points(span))]
        if len(kept) != len(other.ports):
            state.leases[veth] = Lease(other.container, other.address, kept)


def _points(span: Span) -> set[tuple[str, str, int]]:
    return {(span.protocol, span.host_ip, span.host_port + n) for n in range(span.count)}


def now() -> float:
    """Seconds since the machine started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
