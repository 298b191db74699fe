"""Which address and which subnet: pure functions over sets of addresses, without any I/O."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from scow.api import Exhausted, Exists, Invalid

#: Routes this short are default routes in disguise (a VPN's 0.0.0.0/1): every subnet lies within them.
_SHORTEST = 8


def gateway_of(subnet: IPv4Network) -> IPv4Address:
    """The bridge's own address: the first of the subnet."""
    return subnet[1]


def allocate(
    subnet: IPv4Network, leased: Container[IPv4Address], last: IPv4Address | None, wanted: IPv4Address | None = None
) -> IPv4Address:
    """A free address of `subnet`.

    `last` is the address given out most recently: the next free one after it is taken, round and round, so that
    an address rests as long as possible before somebody else has it. Raises Exhausted; for `wanted`, Exists
    (leased already) and Invalid (not a host's address here).
    """
    first, final = int(subnet[2]), int(subnet[-2])
    if wanted is not None:
        if not first <= int(wanted) <= final:
            raise Invalid(f"address {wanted} is not one for a container of {subnet}")
        if wanted in leased:
            raise Exists(f"address {wanted} is already in use by another container")
        return wanted
    start = int(last) + 1 if last is not None and first <= int(last) < final else first
    for number in _around(first, start, final):
        if IPv4Address(number) not in leased:
            return IPv4Address(number)
    raise Exhausted(
        f"no free address in {subnet}", hint="stop a container, or set plugins.bridge.subnet to a larger one"
    )


def _around(first: int, start: int, final: int) -> Iterator[int]:
    yield from range(start, final + 1)
    yield from range(first, start)


def candidates(pools: Sequence[str], prefix: int, turn: int = 0) -> Iterator[IPv4Network]:
    """All subnets of `pools` in order, each pool's own list rotated by `turn` so that engines rarely want the same.

    Raises Invalid for what is no pool.
    """
    for text in pools:
        pool = read_subnet(text, "pools")
        if not pool.prefixlen <= prefix <= 29:
            raise Invalid(f"plugins.bridge.prefix: no /{prefix} fits into {text}", hint="it may be at most 29")
        count = 1 << (prefix - pool.prefixlen)
        size = 1 << (32 - prefix)
        for n in range(count):
            yield IPv4Network((int(pool.network_address) + (n + turn) % count * size, prefix))


def read_subnet(text: str, key: str = "subnet") -> IPv4Network:
    """A subnet as somebody wrote it into the configuration. Raises Invalid."""
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise Invalid(f"plugins.bridge.{key}: {error}", hint="write it as 10.88.0.0/20") from None
    if subnet.prefixlen > 29:
        raise Invalid(f"plugins.bridge.{key}: {text} has no room for containers", hint="use /29 or larger")
    return subnet


def collides(subnet: IPv4Network, taken: Iterable[IPv4Network]) -> IPv4Network | None:
    """The first network in `taken` that shares addresses with `subnet`; default routes don't count."""
    for network in taken:
        if network.prefixlen >= _SHORTEST and network.overlaps(subnet):
            return network
    return None


def choose(choices: Iterable[IPv4Network], taken: Sequence[IPv4Network]) -> IPv4Network:
    """The first subnet that meets nothing in `taken`. Raises Exhausted."""
    for subnet in choices:
        if collides(subnet, taken) is None:
            return subnet
    raise Exhausted(
        "every subnet of plugins.bridge.pools overlaps one that this machine uses already",
        hint="set plugins.bridge.subnet to one that is free",
    )
