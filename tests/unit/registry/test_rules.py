"""Settings, endpoints, redirects, proxies and pauses: all that is decided without asking anybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Invalid
from scow_plugins.registry._endpoints import Rules, is_loopback
from scow_plugins.registry._proxy import proxy_for
from scow_plugins.registry._redirects import Refused, next_step
from scow_plugins.registry._retry import Policy, parse_retry_after
from scow_plugins.registry._settings import read_settings


def rules(**registries):
    return Rules(read_settings({"registries": registries}))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"mirrors": []}, "no key 'mirrors'"),
        ({"registries": []}, "registries is not a table"),
        ({"registries": {"docker.io": {"mirors": []}}}, r"""registries."docker.io" has no key 'mirors'"""),
        ({"registries": {"docker.io": {"mirrors": "http://a"}}}, r'registries."docker.io": Expected `array`'),
        ({"registries": {"docker.io": {"insecure": "yes"}}}, "Expected `bool`"),
        ({"registries": {"docker.io": []}}, "is not a table"),
        ({"registries": {"http://docker.io": {}}}, "not a registry's host name"),
        ({"registries": {"docker.io/library": {}}}, "not a registry's host name"),
        ({"registries": {"docker.io": {"mirrors": ["127.0.0.1:5000"]}}}, "not a registry's URL"),
        ({"registries": {"docker.io": {"mirrors": ["ftp://a"]}}}, "not a registry's URL"),
        ({"registries": {"docker.io": {"mirrors": ["http://a/b"]}}}, "not a registry's URL"),
        ({"registries": {"docker.io": {"mirrors": ["http://a:x"]}}}, "is not a URL"),
        ({"registries": {"docker.io": {"mirrors": ["http://me:pw@a"]}}}, "holds a password"),
        ({"registries": {"docker.io": {"mirrors": ["http://a b"]}}}, "characters"),
    ],
)
def test_settings_that_are_refused(raw, words):
    with pytest.raises(Invalid, match=words) as error:
        read_settings(raw)
    assert "me:pw" not in error.value.message


def test_settings():
    settings = read_settings({"registries": {"docker.io": {"mirrors": ["http://127.0.0.1:5000/"], "insecure": True}}})
    assert settings.of("docker.io").mirrors == ("http://127.0.0.1:5000/",)
    assert settings.of("docker.io").insecure
    assert not settings.of("quay.io").insecure
    assert read_settings({}).registries == {}


@pytest.mark.parametrize(
    ("domain", "bases"),
    [
        ("docker.io", ["https://registry-1.docker.io"]),
        ("quay.io", ["https://quay.io"]),
        ("reg.example:5000", ["https://reg.example:5000"]),
        ("localhost:5000", ["http://localhost:5000", "https://localhost:5000"]),
        ("127.1.2.3", ["http://127.1.2.3", "https://127.1.2.3"]),
        ("[::1]:5000", ["http://[::1]:5000", "https://[::1]:5000"]),
        ("localhost.evil.example", ["https://localhost.evil.example"]),
        ("127.0.0.1.evil.example", ["https://127.0.0.1.evil.example"]),
        ("lax.example", ["https://lax.example", "http://lax.example"]),
        ("mirrored.example", ["http://10.0.0.1:5000", "https://m.example", "https://mirrored.example"]),
    ],
)
def test_endpoints(domain, bases):
    found = rules(
        **{
            "lax.example": {"insecure": True},
            "mirrored.example": {"mirrors": ["http://10.0.0.1:5000", "https://m.example:443/"]},
        }
    ).endpoints(domain)
    assert [endpoint.base for endpoint in found] == bases


def test_a_login_belongs_to_one_host():
    found = rules(**{"docker.io": {"mirrors": ["http://127.0.0.1:5000"]}}).endpoints("docker.io")
    assert [endpoint.login for endpoint in found] == ["127.0.0.1:5000", "docker.io"]


def test_plain_http():
    some = rules(
        **{"lax.example": {"insecure": True}, "b.io": {"mirrors": ["http://m.example:80", "https://s.example"]}}
    )
    assert some.plain_ok("localhost:1234")
    assert some.plain_ok("lax.example")
    assert some.plain_ok("m.example")
    for host in ("s.example", "quay.io", "registry-1.docker.io", "10.0.0.1", "lax.example:8080", "b.io"):
        assert not some.plain_ok(host), host
    assert not some.certificate_checked("lax.example")
    assert some.certificate_checked("localhost:1234")


@given(st.text(max_size=30))
def test_hosts_of_any_kind(host):
    assert is_loopback(host) in (True, False)


@pytest.mark.parametrize(
    ("url", "location", "target", "same"),
    [
        ("https://a/v2/x", "/y?z=1#f", "https://a/y?z=1", True),
        ("https://a/v2/x", "https://a:443/y", "https://a/y", True),
        ("https://a/v2/x", "https://A/y", "https://a/y", True),
        ("https://a/v2/x", "https://a:444/y", "https://a:444/y", False),
        ("https://a/v2/x", "//b/y", "https://b/y", False),
        ("https://a/v2/x", "https://me:pw@b/y", "https://b/y", False),
        ("http://127.0.0.1:1/x", "http://127.0.0.1:2/y", "http://127.0.0.1:2/y", False),
        ("http://127.0.0.1:1/x", "https://127.0.0.1:1/y", "https://127.0.0.1:1/y", False),
    ],
)
def test_redirects(url, location, target, same):
    step = next_step(url, location, rules())
    assert (step.url, step.same_origin) == (target, same)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("https://a/x", "http://a/y"),
        ("https://a/x", "http://127.0.0.1/y"),
        ("http://127.0.0.1/x", "http://a/y"),
        ("https://a/x", "ftp://a/y"),
        ("https://a/x", "file:///etc/passwd"),
        ("https://a/x", ""),
        ("https://a/x", "https://b:99999/"),
        ("https://a/x", "https://b/\r\nX: y"),
        ("https://a/x", "https://[::/"),
        ("https://a/x", "https://b/" + "x" * 20_000),
    ],
)
def test_redirects_that_are_refused(url, location):
    with pytest.raises(Refused):
        next_step(url, location, rules())


@given(st.text(max_size=60))
def test_any_location_is_followed_over_tls_or_refused(location):
    try:
        step = next_step("https://a/x", location, rules())
    except Refused:
        return
    assert step.url.startswith("https://")
    assert step.url.isascii()
    assert " " not in step.url


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.example/x", {}, None),
        ("https://a.example/x", {"https_proxy": "http://p:3128"}, "http://p:3128"),
        ("https://a.example/x", {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ("https://a.example/x", {"ALL_PROXY": "http://p"}, "http://p"),
        ("http://a.example/x", {"https_proxy": "http://p"}, None),
        ("http://127.0.0.1:5000/x", {"http_proxy": "http://p"}, None),
        ("http://localhost/x", {"http_proxy": "http://p"}, None),
        ("https://a.example/x", {"https_proxy": "http://p", "no_proxy": "b, example"}, None),
        ("https://a.example/x", {"https_proxy": "http://p", "NO_PROXY": ".a.example"}, None),
        ("https://a.example/x", {"https_proxy": "http://p", "no_proxy": "*"}, None),
        ("https://a.example/x", {"https_proxy": "http://p", "no_proxy": "ample"}, "http://p"),
        ("https://10.1.2.3/x", {"https_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, None),
        ("https://a.example:8443/x", {"https_proxy": "http://p", "no_proxy": "a.example:443"}, "http://p"),
        ("https://a.example:8443/x", {"https_proxy": "http://p", "no_proxy": "a.example:8443"}, None),
    ],
)
def test_proxies(url, environ, expected):
    assert proxy_for(url, environ) == expected


def test_pauses_grow_are_jittered_and_end():
    policy = Policy(rounds=4, first_pause=1, longest_pause=3)
    for done, most in ((1, 1), (2, 2), (3, 3)):
        pause = policy.pause(done, None)
        assert pause is not None
        assert most / 2 <= pause <= most
    assert policy.pause(4, None) is None
    assert policy.pause(1, 7) == 7
    assert policy.pause(1, policy.patience + 1) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("5", 5), ("0", 0), (None, None), ("", None), ("soon", None), ("-1", None), ("9" * 400, 999999999),
     ("Wed, 21 Oct 2015 07:28:00 GMT", 60), ("Wed, 21 Oct 2015 07:26:00 GMT", 0)],
)  # fmt: skip
def test_retry_after(value, expected):
    assert parse_retry_after(value, now=1445412420.0) == expected


@given(st.text(max_size=40))
def test_any_retry_after(value):
    seconds = parse_retry_after(value)
    assert seconds is None or seconds >= 0
