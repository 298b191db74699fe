"""Platforms, ports, signals, errors, the lifecycle table: small pure things."""

from __future__ import annotations

import itertools
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.engine.builders import BuildRequest
from scow.engine.types import CreateRequest
from scow.errors import ANSWERS, Conflict, Internal, Invalid, Kind, NotFound, ScowError, Unavailable, error_of
from scow.lifecycle import TRANSITIONS, Happening, step
from scow.model.container import Status
from scow.model.network import PortMapping, parse_ports
from scow.model.platform import Platform, choose
from scow.model.process import ExitStatus
from scow.model.signals import signal_number


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("amd64", Platform("linux", "amd64")),
        ("x86_64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("Linux/ARM/v7", Platform("linux", "arm", "v7")),
        ("armhf", Platform("linux", "arm", "v7")),
        ("riscv64", Platform("linux", "riscv64")),
        ("linux", Platform.host()),
        ("windows/amd64", Platform("windows", "amd64")),
    ],
)
def test_platforms(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize(
    "text", ["", "/", "foo", "linux/amd64,linux/arm64", "a b/c", "linux/", "/amd64", "a/b/c/d", "linux//v8"]
)
def test_platforms_refused(text: str) -> None:
    with pytest.raises(Invalid):
        Platform.parse(text)


@pytest.mark.parametrize(
    ("offered", "wanted", "rank"),
    [
        ("linux/amd64", "linux/amd64", 0),
        ("linux/amd64/v1", "linux/amd64", 0),
        ("linux/amd64/v2", "linux/amd64", None),
        ("linux/amd64", "linux/amd64/v3", 2),
        ("linux/arm64", "linux/arm64/v8", 0),
        ("linux/arm/v6", "linux/arm/v7", 1),
        ("linux/arm/v5", "linux/arm/v7", 2),
        ("linux/arm/v7", "linux/arm/v6", None),
        ("linux/arm64", "linux/amd64", None),
        ("windows/amd64", "linux/amd64", None),
        ("linux/arm64/weird", "linux/arm64", None),
        ("linux/arm64/v" + "9" * 5000, "linux/arm64", None),
    ],
)
def test_rank(offered: str, wanted: str, rank: int | None) -> None:
    assert Platform.parse(offered).rank(Platform.parse(wanted)) == rank


def test_choose() -> None:
    wanted = Platform("linux", "arm", "v7")
    entries = [
        (None, "bare"),
        (Platform("linux", "arm", "v5"), "v5"),
        (Platform("linux", "arm", "v6"), "v6"),
        (Platform("unknown", "unknown"), "attestation"),
    ]
    assert choose(entries, wanted) == "v6"
    assert choose([*entries, (wanted, "first"), (wanted, "second")], wanted) == "first"
    assert choose(entries[:1], wanted) == "bare"
    assert choose(entries[3:], wanted) is None
    assert Platform.host().rank(Platform.host()) == 0


@pytest.mark.parametrize(
    ("text", "mappings"),
    [
        ("80", [PortMapping(80)]),
        ("8080:80", [PortMapping(80, 8080)]),
        ("8080:80/udp", [PortMapping(80, 8080, "udp")]),
        ("80/TCP", [PortMapping(80)]),
        ("127.0.0.1:8080:80", [PortMapping(80, 8080, "tcp", "127.0.0.1")]),
        ("127.0.0.1::80", [PortMapping(80, 0, "tcp", "127.0.0.1")]),
        ("[::1]:8080:80", [PortMapping(80, 8080, "tcp", "::1")]),
        ("[::]::80", [PortMapping(80, 0, "tcp", "::")]),
        (":80", [PortMapping(80)]),
        ("8000-8001:80-81", [PortMapping(80, 8000), PortMapping(81, 8001)]),
        ("8000-8003:80", [PortMapping(80, 8000, "tcp", "", 8003)]),
        ("80-81", [PortMapping(80), PortMapping(81)]),
        ("65535:65535", [PortMapping(65535, 65535)]),
    ],
)
def test_ports(text: str, mappings: list[PortMapping]) -> None:
    assert parse_ports(text) == tuple(mappings)


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "65536", "-1", "x", "80:", "80/", "80/sctp", "a:80", "1.2.3:80:80", "1.2.3.4:80", "81-80", "1-2:3-5",
        "1-2-3:4", "1-:80", "-5:80", "80:80:80", "::1:80:80", "[::1]", "[x]:80:80", "[]:80:80", "80 ", "80\n", "٣",
        "²:80", "80/ｔcp", "9" * 5000, "9" * 5000 + ":80", "1.1.1.1:" + "9" * 5000 + ":80",
    ],
)  # fmt: skip
def test_ports_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_ports(text)


@given(st.text(alphabet="0123456789-:./[]audcpt²٣ ", max_size=24))
def test_any_ports_parse_or_are_invalid(text: str) -> None:
    try:
        mappings = parse_ports(text)
    except Invalid:
        return
    assert mappings
    for mapping in mappings:
        assert 1 <= mapping.container_port <= 65535
        assert 0 <= mapping.host_port <= 65535


def test_port_mapping_as_text() -> None:
    assert str(PortMapping(80, 8080)) == "0.0.0.0:8080->80/tcp"
    assert str(PortMapping(80, 8080, "udp", "::1")) == "[::1]:8080->80/udp"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SIGTERM", 15), ("TERM", 15), ("term", 15), ("sigterm", 15), ("15", 15), (9, 9), ("64", 64), ("RTMIN", 34),
        ("SIGRTMIN+3", 37), ("RTMIN+30", 64), ("RTMAX-1", 63), ("SIGRTMAX", 64), ("WINCH", int(signal.SIGWINCH)),
    ],
)  # fmt: skip
def test_signals(name: str | int, number: int) -> None:
    assert signal_number(name) == number


@pytest.mark.parametrize(
    "name", ["", "0", 0, -1, "65", "FOO", "SIG", "²", "٣", "RTMIN+²", "RTMIN+31", "RTMIN+99999", "RTMAX-31", "9" * 5000,
             "_DFL", "SIGSIGTERM", " TERM", "\0"]
)  # fmt: skip
def test_signals_refused(name: str | int) -> None:
    with pytest.raises(Invalid):
        signal_number(name)


def test_exit_status() -> None:
    assert [ExitStatus(code=3).exit_code, ExitStatus(signal=9).exit_code, ExitStatus().exit_code] == [3, 137, 255]


def test_every_kind_has_an_answer_and_a_class() -> None:
    assert set(ANSWERS) == set(Kind)
    for kind in Kind:
        error = error_of(kind.value, "message", "hint")
        assert (error.kind, error.message, error.hint, str(error)) == (kind, "message", "hint", "message")
        assert 400 <= ANSWERS[kind].http < 600
        assert ANSWERS[kind].run_exit in (125, 126, 127)
    assert len({cls.kind for cls in ScowError.__subclasses__()}) == len(ScowError.__subclasses__()) == len(Kind)


def test_unknown_kind_is_internal() -> None:
    assert isinstance(error_of("new-in-a-later-version", "m"), Internal)
    assert Unavailable("m", retry_after=3).retry_after == 3


def test_messages_end() -> None:
    """What a stranger wrote may be quoted, however long it is."""
    error = NotFound("begin " + "x" * 100_000 + " end", hint="y" * 100_000)
    assert error.message.startswith("begin x")
    assert error.message.endswith("x end")
    assert len(error.message) < 2100 > len(error.hint or "")
    assert str(error) == error.message


def test_base_is_never_raised() -> None:
    with pytest.raises(TypeError):
        ScowError("x")
    assert NotFound("x").hint is None


@pytest.mark.parametrize(("status", "happening"), list(itertools.product(Status, Happening)))
def test_lifecycle_is_total(status: Status, happening: Happening) -> None:
    if happening in TRANSITIONS[status]:
        assert step(status, happening, "web") in Status
    else:
        with pytest.raises(Conflict, match="web"):
            step(status, happening, "web")


def test_lifecycle_always_has_a_way_to_the_end() -> None:
    for status in Status:
        assert step(status, Happening.DISCARD, "web") is Status.REMOVING


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "\x1b[2J", "a\x00", "a\u2028b"])
@pytest.mark.parametrize("field", ["hostname", "domainname", "nameservers", "search", "dns_options", "extra_hosts"])
def test_no_word_makes_a_line_of_its_own(field: str, bad: str) -> None:
    """They end up in /etc/hosts and /etc/resolv.conf of the container."""
    value = {"hostname": bad, "domainname": bad, "extra_hosts": ((bad, "192.0.2.1"),)}.get(field, (bad,))
    with pytest.raises(Invalid, match="control character"):
        CreateRequest("image", **{field: value})  # type: ignore[arg-type]
    if field == "extra_hosts":
        with pytest.raises(Invalid, match="control character"):
            BuildRequest(extra_hosts=(("name", bad),))  # type: ignore[call-arg]
