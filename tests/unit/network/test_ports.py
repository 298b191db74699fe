"""Published ports: joined into spans, held by sockets, and refused with a reason."""

from __future__ import annotations

import resource
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Exists, Invalid, PortMapping, Unsupported, parse_ports
from scow_plugins.bridge._ports import reserved, spans

MAPPINGS = st.builds(
    PortMapping,
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from(["0.0.0.0", "127.0.0.1"]),
)


@given(st.lists(MAPPINGS, max_size=30))
def test_spans_hold_the_same_ports(ports: list[PortMapping]) -> None:
    expanded = [
        PortMapping(span.container_port + n, span.host_port + n, span.protocol, span.host_ip)
        for span in spans(ports)
        for n in range(span.count)
    ]
    assert expanded == ports


def test_a_range_is_one_span() -> None:
    assert len(spans(parse_ports("8000-9999:8000-9999"))) == 1


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_port_is_held_and_given_back(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with reserved([PortMapping(80, 0, protocol)], "127.0.0.1") as (mapping,):
        assert mapping.host_ip == "127.0.0.1"
        with socket.socket(socket.AF_INET, kind) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with pytest.raises(OSError):  # noqa: PT012 - TCP notices at listen, UDP at bind
                other.bind(("127.0.0.1", mapping.host_port))
                if protocol == "tcp":
                    other.listen()
        with pytest.raises(Exists, match=f"{mapping.host_port}/{protocol}"), reserved([mapping], "127.0.0.1"):
            pass
    with reserved([mapping], "127.0.0.1"):
        pass


def test_a_port_twice_in_one_request_is_taken() -> None:
    with reserved([PortMapping(80)], "127.0.0.1") as (mapping,):
        pass
    with pytest.raises(Exists), reserved([mapping, mapping], "127.0.0.1"):
        pass


def test_a_held_port_talks_to_nobody() -> None:
    with reserved([PortMapping(80)], "127.0.0.1") as (mapping,), socket.socket() as client:
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.connect(("127.0.0.1", mapping.host_port))


@pytest.mark.root  # others may have only RLIMIT_NOFILE descriptors on the way
def test_thousands_of_ports_need_few_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        with reserved([PortMapping(port) for port in range(1, 2001)], "127.0.0.1") as taken:
            assert len({mapping.host_port for mapping in taken}) == 2000
            with pytest.raises(Exists), reserved([taken[1234]], "127.0.0.1"):
                pass
        with reserved([taken[1234]], "127.0.0.1"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(
    ("mapping", "error"),
    [
        (PortMapping(80, 0, "tcp", "::1"), Unsupported),
        (PortMapping(80, 0, "sctp"), Unsupported),
        (PortMapping(80, 0, "tcp", "192.0.2.200"), Invalid),
    ],
)
def test_what_cannot_be_published(mapping: PortMapping, error: type[Exception]) -> None:
    with pytest.raises(error), reserved([mapping], "127.0.0.1"):
        pass
