"""Which nameservers a container is told of."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.bridge._dns import Resolver, host_resolver, parse, reachable


def _files(directory: Path, own: str, upstream: str | None = None) -> Resolver:
    (directory / "resolv.conf").write_text(own)
    if upstream is not None:
        (directory / "upstream").write_text(upstream)
    return host_resolver(directory / "resolv.conf", directory / "upstream")


def test_servers_search_and_options(tmp_path: Path) -> None:
    text = "# x\nnameserver 192.0.2.1\nnameserver 192.0.2.2 # y\nsearch a.example b.example\noptions ndots:2 edns0\n"
    expected = Resolver(("192.0.2.1", "192.0.2.2"), ("a.example", "b.example"), ("ndots:2", "edns0"))
    assert _files(tmp_path, text) == expected


def test_loopback_and_ipv6_cannot_be_reached() -> None:
    servers = ("127.0.0.1", "127.0.0.53", "::1", "fe80::1%eth0", "2001:db8::1", "0.0.0.0", "192.0.2.1", "192.0.2.1")
    assert reachable(servers) == ("192.0.2.1",)


def test_a_stub_gives_way_to_what_it_asks(tmp_path: Path) -> None:
    found = _files(tmp_path, "nameserver 127.0.0.53\nsearch lan\n", "nameserver 192.0.2.7\nsearch other\n")
    assert found == Resolver(("192.0.2.7",), ("lan",), ())


def test_nothing_is_there(tmp_path: Path) -> None:
    assert host_resolver(tmp_path / "no", tmp_path / "none") == Resolver()


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    parse(text)
