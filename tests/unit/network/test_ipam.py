"""Addresses and subnets: no collision, no early reuse, exhaustion said so."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Exhausted, Exists, Invalid
from scow_plugins.bridge import _ipam

NETWORKS = st.builds(
    lambda address, prefix: IPv4Network((address, prefix), strict=False),
    st.integers(0x0A000000, 0x0AFFFFFF),
    st.integers(20, 29),
)


@given(NETWORKS, st.data())
def test_never_gives_what_is_leased_or_reserved(subnet: IPv4Network, data: st.DataObject) -> None:
    hosts = [subnet[2], subnet[-2], subnet[len(range(int(subnet[2]), int(subnet[-2]))) // 2 + 2]]
    leased = set(data.draw(st.lists(st.sampled_from(hosts), unique=True)))
    last = data.draw(st.one_of(st.none(), st.sampled_from([*hosts, IPv4Address("192.0.2.1")])))
    address = _ipam.allocate(subnet, leased, last)
    assert address in subnet
    assert address not in leased
    assert address not in (subnet[0], subnet[1], subnet[-1])


@given(NETWORKS.filter(lambda network: network.prefixlen >= 26), st.integers(1, 200))
def test_an_address_rests_until_all_others_had_their_turn(subnet: IPv4Network, rounds: int) -> None:
    last, given_out = None, []
    for _ in range(rounds):
        last = _ipam.allocate(subnet, set(), last)
        given_out.append(last)
    size = subnet.num_addresses - 3
    for n, address in enumerate(given_out):
        assert address not in given_out[max(0, n - size + 1) : n]


def test_exhaustion_names_the_subnet() -> None:
    subnet = IPv4Network("10.0.0.0/29")
    leased: set[IPv4Address] = set()
    for _ in range(5):
        leased.add(_ipam.allocate(subnet, leased, None))
    with pytest.raises(Exhausted, match=r"10\.0\.0\.0/29"):
        _ipam.allocate(subnet, leased, None)


def test_a_wanted_address_is_given_or_refused() -> None:
    subnet = IPv4Network("10.0.0.0/24")
    wanted = IPv4Address("10.0.0.9")
    assert _ipam.allocate(subnet, set(), None, wanted) == wanted
    with pytest.raises(Exists):
        _ipam.allocate(subnet, {wanted}, None, wanted)
    for outside in ("10.0.0.0", "10.0.0.1", "10.0.0.255", "10.0.1.4"):
        with pytest.raises(Invalid):
            _ipam.allocate(subnet, set(), None, IPv4Address(outside))


@given(st.lists(NETWORKS, max_size=5), st.integers(0, 1 << 32))
def test_a_chosen_subnet_meets_nothing(taken: list[IPv4Network], turn: int) -> None:
    subnet = _ipam.choose(_ipam.candidates(["10.0.0.0/12", "192.168.0.0/16"], 22, turn), taken)
    assert not any(subnet.overlaps(other) for other in taken)


def test_default_routes_do_not_count() -> None:
    subnet = IPv4Network("10.0.0.0/24")
    halves = [IPv4Network("0.0.0.0/0"), IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1")]
    assert _ipam.choose([subnet], halves) == subnet


def test_nothing_left_says_what_to_set() -> None:
    with pytest.raises(Exhausted) as caught:
        _ipam.choose(_ipam.candidates(["10.0.0.0/16"], 20), [IPv4Network("10.0.0.0/8")])
    assert "plugins.bridge.subnet" in (caught.value.hint or "")


def test_candidates_are_all_there_whatever_the_turn() -> None:
    plain = list(_ipam.candidates(["10.0.0.0/16"], 20))
    turned = list(_ipam.candidates(["10.0.0.0/16"], 20, 5))
    assert plain != turned
    assert sorted(plain) == sorted(turned)
    assert len(plain) == 16


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.0.0.1/24", "fd00::/64", "ten", "10.0.0.0/30"])
def test_a_subnet_that_is_none(text: str) -> None:
    with pytest.raises(Invalid):
        _ipam.read_subnet(text)
