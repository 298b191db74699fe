"""Logins and tokens for one trio run: asked for once per scope, renewed before their end, sent only where they belong.

A registry's password goes to the registry (Basic) or to the token server that the registry names (Bearer); a token
goes to the registry that asked for it. Both are kept in memory only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

import trio

from ._challenge import Challenge, parse_challenges, pick
from ._credentials import Credentials, HelperFailed, find_credentials
from ._endpoints import DOCKER_HUB, Endpoint, Rules, authority
from ._failures import Failure, Verdict, from_answer, from_no_answer
from ._http import Answer, Client, NoAnswer
from ._redirects import may_leave
from ._tokens import TOKEN_BODY_MAX, BadToken, Token, TokenRequest, basic, parse_token, token_request


@dataclass(frozen=True, slots=True)
class Ticket:
    """An Authorization header's value; `fresh` when it was made for this very request. Empty: none is needed yet."""

    value: str = field(default="", repr=False)
    fresh: bool = False


@dataclass(slots=True)
class _Door:
    """What is known of one endpoint's login."""

    challenge: Challenge | None = None
    login: Credentials | None = None
    problem: str = ""
    #: The login was handed in, not found.
    given: bool = False
    tokens: dict[str, Token] = field(default_factory=dict)
    #: What the endpoint itself says is needed, for each scope that was asked for.
    scopes: dict[str, str] = field(default_factory=dict)
    lock: trio.Lock = field(default_factory=trio.Lock)


class Authenticator:
    """Makes the Authorization header for requests to endpoints."""

    def __init__(self, client: Client, rules: Rules) -> None:
        self._client = client
        self._rules = rules
        self._doors: dict[str, _Door] = {}

    async def ticket(self, endpoint: Endpoint, scope: str) -> Ticket:
        """The header's value for a request; empty until the endpoint has asked for a login. Raises Failure."""
        door = self._door(endpoint)
        if door.challenge is None:
            return Ticket()
        if door.login is not None and door.login.registry_token:
            return Ticket(f"Bearer {door.login.registry_token}", fresh=True)
        if door.challenge.scheme == "basic":
            return Ticket(basic(door.login), fresh=True) if door.login is not None else Ticket()
        # One at a time: several layers at once need the same token, and whoever waits here finds it made.
        async with door.lock:
            token = door.tokens.get(scope)
            if token is not None and trio.current_time() < token.stale_at:
                return Ticket(f"Bearer {token.value}")
            token = door.tokens[scope] = await self._new_token(endpoint, door, door.challenge, scope)
            return Ticket(f"Bearer {token.value}", fresh=True)

    async def refused(self, endpoint: Endpoint, scope: str, used: Ticket, answer: Answer) -> None:
        """Learn from a 401; returning means that asking again, with a new ticket, makes sense. Raises Failure."""
        door = self._door(endpoint)
        if used.fresh:
            raise await self._denied(endpoint, door, answer)
        challenge = pick(parse_challenges(answer.headers("www-authenticate")))
        if challenge is None:
            raise await self._denied(endpoint, door, answer)
        if not used.value and not door.given:
            await self._find_login(endpoint, door)
        if challenge.scheme == "basic" and door.login is None:
            raise await self._denied(endpoint, door, answer)
        door.challenge = challenge
        door.scopes[scope] = challenge.parameters.get("scope", "")
        token = door.tokens.get(scope)
        if token is not None and used.value == f"Bearer {token.value}":
            del door.tokens[scope]

    def use(self, endpoint: Endpoint, login: Credentials) -> None:
        """Send this login instead of the user's own, once it is asked for."""
        door = self._door(endpoint)
        door.login, door.given = login, True

    def hint(self, endpoint: Endpoint) -> str | None:
        """What to do about a refusal that came after the login."""
        door = self._door(endpoint)
        if door.problem:
            return f"no login was sent: {door.problem}"
        if door.login is not None:
            server = "" if endpoint.login == DOCKER_HUB else f" {endpoint.login}"
            return f"it may not exist, or your login may be wrong or not be allowed to read it; scow login{server}"
        return None

    def _door(self, endpoint: Endpoint) -> _Door:
        return self._doors.setdefault(endpoint.base, _Door())

    async def _find_login(self, endpoint: Endpoint, door: _Door) -> None:
        door.problem = ""
        async with door.lock:
            try:
                door.login = await find_credentials(endpoint.login)
            except HelperFailed as error:
                # Most images are public: go on without, and say so if access is denied.
                door.login, door.problem = None, str(error)

    async def _denied(self, endpoint: Endpoint, door: _Door, answer: Answer) -> Failure:
        failure = await from_answer(answer)
        failure.hint = self.hint(endpoint)
        return failure

    async def _new_token(self, endpoint: Endpoint, door: _Door, challenge: Challenge, scope: str) -> Token:
        # The last challenge may have been for another repository.
        parameters = {**challenge.parameters, "scope": door.scopes.get(scope, "")}
        request = self._token_request(endpoint, door, Challenge(challenge.scheme, parameters), scope)
        host = authority(urlsplit(request.url))
        try:
            answer = await self._client.send(request.method, request.url, host, request.headers, request.body)
            try:
                return await self._read_token(endpoint, answer, host)
            finally:
                await answer.aclose()
        except NoAnswer as error:
            failure = from_no_answer(error)
            failure.words = f"its token server {host}: {failure.words}"
            # The registry itself did answer: its other scheme would be no better.
            failure.spoken = True
            raise failure from None

    async def _read_token(self, endpoint: Endpoint, answer: Answer, host: str) -> Token:
        if answer.status != 200:
            failure = await from_answer(answer)
            failure.words = f"its token server {host} answers with {failure.words}"
            failure.hint = failure.hint or self.hint(endpoint)
            failure.spoken = True
            if failure.verdict is Verdict.MISSING:
                failure.verdict = Verdict.AWAY
            raise failure
        body = await answer.read(TOKEN_BODY_MAX)
        try:
            return parse_token(body, trio.current_time())
        except BadToken as error:
            raise Failure(Verdict.AWAY, f"its token server {host} {error}") from None

    def _token_request(self, endpoint: Endpoint, door: _Door, challenge: Challenge, scope: str) -> TokenRequest:
        realm = challenge.parameters.get("realm", "")
        try:
            parts = urlsplit(realm)
            host = authority(parts)
        except ValueError:
            host = ""
        if not host or parts.scheme not in ("http", "https") or not (realm.isascii() and realm.isprintable()):
            raise Failure(Verdict.AWAY, "names a token server that is no URL")
        if "@" in parts.netloc or " " in realm:
            raise Failure(Verdict.AWAY, "names a token server that is no URL")
        if not may_leave(endpoint.scheme, parts.scheme, host, self._rules):
            raise Failure(Verdict.AWAY, f"names the token server http://{host}, which is not encrypted")
        return token_request(challenge, scope, door.login)
