"""One engine's passage through this machine's firewalls: opened when a container joins, closed when the bridge goes.

What was found out is kept together with nf_tables' generation, a number that every change of any table increases: as
long as it is the same, nothing has to be read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import _firewall, _legacy, _nft, _rules, _ruleset
from ._netlink import ROUTE, Netlink, NetlinkError
from ._state import Obstacle, State, Store


class Passage:
    """Methods with a state are for one who has the store's lock."""

    def __init__(self, bridge: str, table: str, mode: _firewall.Mode, store: Store) -> None:
        self._bridge = bridge
        self._table = table
        self._mode: _firewall.Mode = mode
        self._store = store

    def open(self, state: State, route: Netlink, filters: Netlink) -> None:
        """See to it that others' firewalls let our packets pass, where they only don't know us. Raises NetlinkError."""
        if self._mode != "open" and state.accepted is not None:
            # The setting has changed since.
            self.close(state, filters)
            _nft.commit(filters, _rules.accept_none(self._table))
            self._store.save(state)
        known = self._mode == "ignore" or self._known(state, filters)
        if known and state.accepted is None:
            return
        uplink, outward = _firewall.uplinks(route, self._bridge)
        if known and state.accepted == outward:
            return
        place = _firewall.Place(self._bridge, state.network(), uplink)
        found = _firewall.drops(filters, place)
        refused = []
        try:
            if self._mode == "open" and (state.accepted not in (None, outward) or _firewall.openable(found)):
                # First the fence within our own table, then what it is for.
                state.accepted = outward
                _nft.commit(filters, _rules.accept_devices(self._table, self._bridge, outward))
                found = _firewall.pass_through(filters, place, found)
        except NetlinkError as error:
            # A container without the network is better than none, and `obstacles` tells.
            said = f"the kernel refuses rules that would accept packets of containers: {error.strerror}"
            refused = [Obstacle(said, published=False)]
        state.obstacles = [*_firewall.obstacles(found, self._mode, self._bridge), *refused]
        state.checked = (_ruleset.generation(filters), self._mode)
        self._store.save(state)

    def close(self, state: State, filters: Netlink) -> None:
        """Take our rules out of others' tables; the state is to be saved. Raises NetlinkError."""
        _firewall.withdraw(filters, self._bridge)
        state.accepted = None

    @contextmanager
    def own_change(self, state: State, filters: Netlink) -> Iterator[None]:
        """One change of our own table in the body: no reason to look at the others' again."""
        before = _ruleset.generation(filters)
        yield
        after = _ruleset.generation(filters)
        if state.checked[0] == before and after == before + 1:
            state.checked = (after, state.checked[1])
            self._store.save(state)

    def obstacles(self, filters: Netlink, *, published: bool) -> list[str]:
        """What is in the way of containers, in sentences. Changes nothing, and needs no lock. Raises NetlinkError."""
        if self._mode == "ignore":
            return []
        state = self._store.peek()
        found = state.obstacles
        if not self._known(state, filters):
            with Netlink(ROUTE) as route:
                uplink, _ = _firewall.uplinks(route, self._bridge)
            place = _firewall.Place(self._bridge, state.network() if state.subnet else None, uplink)
            dropped = _firewall.drops(filters, place)
            opened = _firewall.openable(dropped) if self._mode == "open" else ()
            found = _firewall.obstacles(dropped, self._mode, self._bridge, opened=opened)
        return [each.said for each in found if published or not each.published]

    def _known(self, state: State, filters: Netlink) -> bool:
        """Is what was found out still so? Legacy tables have no generation."""
        return state.checked == (_ruleset.generation(filters), self._mode) and not _legacy.present()
