"""The token flow as data: from a challenge to a request, from an answer to a token. Sans-IO.

distribution, docs/spec/auth/token.md and oauth.md: GET with the service and one `scope` per scope; POST with a refresh
token when the login is an identity token. `expires_in` is 60 s when it isn't given. Tokens never show in a repr.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import msgspec

from ._challenge import Challenge
from ._credentials import Credentials

CLIENT_ID: Final = "scow"
DEFAULT_LIFETIME: Final = 60.0
#: Answers of token servers are a few kilobytes (a JWT with its key's chain).
TOKEN_BODY_MAX: Final = 1024 * 1024
_LIFETIME_MAX: Final = 24 * 3600.0
_TOKEN_MAX: Final = 128 * 1024


class BadToken(Exception):
    """The token server's answer holds no token that could be sent."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; after `stale_at` (monotonic seconds) a new one is asked for beforehand."""

    value: str = field(repr=False)
    stale_at: float


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What to send to the realm."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


class _Answer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: int | float | str | None = None


def token_request(challenge: Challenge, scope: str, login: Credentials | None) -> TokenRequest:
    """The request for a token that answers `challenge`; `scope` is asked for beside what the challenge names."""
    realm = urlsplit(challenge.parameters["realm"])._replace(fragment="")
    service = challenge.parameters.get("service", "")
    scopes = merge_scopes(challenge.parameters.get("scope", ""), scope)
    if login is not None and login.identity_token:
        form = {
            "grant_type": "refresh_token",
            "service": service,
            "scope": " ".join(scopes),
            "client_id": CLIENT_ID,
            "refresh_token": login.identity_token,
        }
        headers = (("Content-Type", "application/x-www-form-urlencoded"),)
        return TokenRequest("POST", realm.geturl(), headers, urlencode(form).encode())
    query = parse_qsl(realm.query, keep_blank_values=True)
    query += [("service", service)] if service else []
    query += [("scope", one) for one in scopes]
    query.append(("client_id", CLIENT_ID))
    url = realm._replace(query=urlencode(query)).geturl()
    return TokenRequest("GET", url, (("Authorization", basic(login)),) if login is not None else ())


def merge_scopes(challenged: str, ours: str) -> list[str]:
    """The scopes of a challenge, with the actions that we want beside; ours alone when it names none.

    The registry knows best what its repositories are called (a mirror may have other names), we know what comes next:
    a challenge for a HEAD says `pull` where a push follows.
    """
    wanted = dict(scope.rpartition(":")[::2] for scope in ours.split())
    return [_with_actions(scope, wanted) for scope in challenged.split()] or ours.split()


def _with_actions(scope: str, wanted: dict[str, str]) -> str:
    resource, colon, actions = scope.rpartition(":")
    more = wanted.get(resource, "").split(",")
    return resource + colon + ",".join(dict.fromkeys(each for each in [*actions.split(","), *more] if each))


def basic(login: Credentials) -> str:
    """The Authorization header's value for a name and a password (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def parse_token(body: bytes, now: float) -> Token:
    """Read a token server's answer that came at `now` (monotonic seconds). Raises BadToken."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadToken("answers with something that is no token") from None
    value = answer.token or answer.access_token or ""
    if not value:
        raise BadToken("answers without a token")
    if len(value) > _TOKEN_MAX or not value.isascii() or not value.isprintable() or " " in value:
        raise BadToken("answers with a token that can't be sent")
    lifetime = _lifetime(answer.expires_in)
    # Renewed a little before its end, so that it doesn't end between two requests.
    return Token(value, now + lifetime - min(10.0, lifetime / 4))


def _lifetime(value: int | float | str | None) -> float:
    try:
        seconds = float(value) if value is not None else DEFAULT_LIFETIME
    except (ValueError, OverflowError):
        seconds = DEFAULT_LIFETIME
    return min(seconds, _LIFETIME_MAX) if seconds > 0 else DEFAULT_LIFETIME
