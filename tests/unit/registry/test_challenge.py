"""WWW-Authenticate from friends and strangers."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.registry._challenge import Challenge, parse_challenges, pick

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.!~", min_size=1, max_size=20)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull"',
            (
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:a/b:pull",
                },
            ),
        ),
        ('BEARER Realm="x" , ERROR = invalid_token', ("bearer", {"realm": "x", "error": "invalid_token"})),
        (r'Basic realm="a \"quoted\", name"', ("basic", {"realm": 'a "quoted", name'})),
        ("Bearer realm=https://a/token,service=b", ("bearer", {"realm": "https://a/token", "service": "b"})),
        ('Bearer realm="first",realm="second"', ("bearer", {"realm": "first"})),
        ("Basic", ("basic", {})),
        ('Bearer realm="never closed', ("bearer", {"realm": "never closed"})),
    ],
)  # fmt: skip
def test_one_challenge(header, expected):
    assert parse_challenges([header]) == (Challenge(*expected),)


def test_several_in_one_header_and_in_several():
    found = parse_challenges(['Negotiate abc==, Basic realm="x"', 'Bearer realm="y",service="z"'])
    assert [challenge.scheme for challenge in found] == ["negotiate", "abc", "basic", "bearer"] or [
        challenge.scheme for challenge in found
    ] == ["negotiate", "basic", "bearer"]
    chosen = pick(found)
    assert chosen is not None
    assert chosen.parameters == {"realm": "y", "service": "z"}


def test_what_is_picked():
    basic, bearer, bare = Challenge("basic", {}), Challenge("bearer", {"realm": "x"}), Challenge("bearer", {})
    assert pick([basic, bearer]) is bearer
    assert pick([bare, basic]) is basic
    assert pick([bare, Challenge("digest", {})]) is None
    assert pick([]) is None


@given(st.lists(st.text(max_size=200), max_size=3))
def test_nothing_raises(headers):
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


@given(st.text(' \t,="\\aB:/', max_size=60))
def test_nothing_raises_among_the_special_characters(text):
    parse_challenges([text])
    parse_challenges([f"Bearer {text}"])


@given(TOKEN, st.dictionaries(TOKEN.map(str.lower), VALUE, min_size=1, max_size=5))
def test_what_is_written_by_the_book_is_read_back(scheme, parameters):
    escaped = {key: value.replace("\\", "\\\\").replace('"', '\\"') for key, value in parameters.items()}
    header = f"{scheme} " + ", ".join(f'{key}="{value}"' for key, value in escaped.items())
    assert parse_challenges([header]) == (Challenge(scheme.lower(), parameters),)


@pytest.mark.parametrize("hostile", ['"', "a=", "\\", 'a="\\', ", ", "a ", "a=b"])
def test_it_is_quick(hostile):
    start = time.perf_counter()
    parse_challenges(["Bearer " + hostile * 50_000] * 3)
    assert time.perf_counter() - start < 1
