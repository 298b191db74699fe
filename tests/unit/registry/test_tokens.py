"""Token requests and answers, as data."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.registry._challenge import Challenge
from scow_plugins.registry._credentials import Credentials
from scow_plugins.registry._tokens import BadToken, parse_token, token_request

REALM = {"realm": "https://auth.example/token?account=me", "service": "registry.example"}


def test_anonymous():
    request = token_request(Challenge("bearer", REALM), "repository:a:pull", None)
    assert request.method == "GET"
    assert request.headers == ()
    assert parse_qs(urlsplit(request.url).query) == {
        "account": ["me"],
        "service": ["registry.example"],
        "scope": ["repository:a:pull"],
        "client_id": ["scow"],
    }


def test_the_challenge_knows_the_scope_best_and_may_name_several():
    challenge = Challenge("bearer", {**REALM, "scope": "repository:a:pull repository:b:pull,push"})
    query = parse_qs(urlsplit(token_request(challenge, "repository:x:pull", None).url).query)
    assert query["scope"] == ["repository:a:pull", "repository:b:pull,push"]


def test_a_password_goes_into_the_header_and_nowhere_else():
    request = token_request(Challenge("bearer", REALM), "s", Credentials("me", "pässword"))
    assert request.headers == (("Authorization", "Basic bWU6cMOkc3N3b3Jk"),)
    assert "me" not in repr(request.url.replace("account=me", ""))
    assert "bWU6" not in repr(request)


def test_an_identity_token_is_posted():
    request = token_request(Challenge("bearer", REALM), "s", Credentials(identity_token="secret"))
    assert (request.method, request.url) == ("POST", REALM["realm"])
    assert parse_qs(request.body.decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["registry.example"],
        "scope": ["s"],
        "client_id": ["scow"],
        "refresh_token": ["secret"],
    }
    assert "secret" not in repr(request)


@pytest.mark.parametrize(
    ("answer", "stale_at"),
    [
        ({"token": "t", "expires_in": 300}, 1290),
        ({"access_token": "t"}, 1050),
        ({"token": "t", "access_token": "u", "expires_in": 8}, 1006),
        ({"token": "t", "expires_in": "300"}, 1290),
        ({"token": "t", "expires_in": -5}, 1050),
        ({"token": "t", "expires_in": "soon"}, 1050),
        ({"token": "t", "expires_in": 1e300}, 1000 + 86400 - 10),
        ({"token": "t", "expires_in": None, "issued_at": 7}, 1050),
    ],
)
def test_an_answer(answer, stale_at):
    token = parse_token(json.dumps(answer).encode(), 1000)
    assert (token.value, token.stale_at) == ("t", stale_at)
    assert "'t'" not in repr(token)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: y"}', b'{"token": "a b"}', b"\xff",
             b'{"token": ""}', b"[" * 100_000]
)  # fmt: skip
def test_no_token(body):
    with pytest.raises(BadToken):
        parse_token(body, 0)


@given(st.binary(max_size=200))
def test_any_answer_is_a_token_or_a_bad_one(body):
    try:
        parse_token(body, 0)
    except BadToken:
        pass
