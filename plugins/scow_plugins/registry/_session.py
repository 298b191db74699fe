"""One request to a registry, with what belongs to it: login, renewal of a token that ended, redirects.

Authorization goes to the endpoint only: at the first redirect to another scheme, host or port it is left behind, and
does not come back on the way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from scow.api.aio import cleanup

from ._auth import Authenticator, Ticket
from ._endpoints import Endpoint, Rules, authority
from ._failures import Failure, Verdict, from_answer, from_no_answer
from ._http import Answer, Body, Client, NoAnswer
from ._redirects import REDIRECTS_MAX, Refused, next_step
from ._retry import Policy

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: No login, a token from before, one that another task had renewed meanwhile, one made for this request.
_LOGINS_MAX = 4
_CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked, wherever redirects lead."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | Body = b""


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{authority(parts)}"


class Session:
    """The requests of one trio run."""

    def __init__(self, rules: Rules, policy: Policy) -> None:
        self._rules = rules
        self.client = Client(rules, policy)
        self.auth = Authenticator(self.client, rules)

    @asynccontextmanager
    async def get(
        self, endpoint: Endpoint, path: str, scope: str, headers: Iterable[tuple[str, str]] = ()
    ) -> AsyncIterator[Answer]:
        """The answer to a GET of `path` at an endpoint, with a status of 2xx or 416. Raises Failure."""
        async with self.ask("GET", endpoint, endpoint.base + path, scope, headers) as answer:
            yield answer

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        endpoint: Endpoint,
        url: str,
        scope: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Body = b"",
        also: frozenset[int] = frozenset({416}),
    ) -> AsyncIterator[Answer]:
        """The answer to any request, with a status of 2xx or one of `also`. Raises Failure.

        The login is sent only when `url` is the endpoint's own.
        """
        try:
            answer = await self._answer(endpoint, _Question(method, url, tuple(headers), body), scope)
        except NoAnswer as error:
            raise from_no_answer(error) from None
        try:
            if not (200 <= answer.status < 300 or answer.status in also):
                raise await self._failure(endpoint, answer)
            yield answer
        finally:
            await _close(answer)

    @asynccontextmanager
    async def get_url(self, url: str, headers: Iterable[tuple[str, str]] = ()) -> AsyncIterator[Answer]:
        """A GET of any URL, without any login."""
        try:
            answer, _ = await self._follow(_Question("GET", url, tuple(headers)), Ticket())
        except NoAnswer as error:
            raise from_no_answer(error) from None
        try:
            if not (200 <= answer.status < 300 or answer.status == 416):
                raise await from_answer(answer)
            yield answer
        finally:
            await _close(answer)

    async def _answer(self, endpoint: Endpoint, question: _Question, scope: str) -> Answer:
        ours = _origin(question.url) == endpoint.base
        for _ in range(_LOGINS_MAX):
            ticket = await self.auth.ticket(endpoint, scope) if ours else Ticket()
            answer, at_home = await self._follow(question, ticket)
            if answer.status != 401 or not at_home or not ours:
                return answer
            try:
                await self.auth.refused(endpoint, scope, ticket, answer)
            finally:
                await _close(answer)
        raise Failure(Verdict.DENIED, "asks for another login again and again")

    async def _follow(self, question: _Question, ticket: Ticket) -> tuple[Answer, bool]:
        """The first answer that is no redirect, and whether it comes from where the request was sent."""
        login = (("Authorization", ticket.value),) if ticket.value else ()
        at_home, url = True, question.url
        for _ in range(REDIRECTS_MAX + 1):
            host = authority(urlsplit(url))
            answer = await self.client.send(question.method, url, host, question.headers + login, question.body)
            if answer.status not in _REDIRECTS:
                return answer, at_home
            await _close(answer)
            if answer.status == 303 and question.method not in ("GET", "HEAD"):
                raise Failure(Verdict.AWAY, "answers an upload with a page to look at (status 303)")
            try:
                step = next_step(url, answer.header("location") or "", self._rules)
            except Refused as error:
                raise Failure(Verdict.AWAY, str(error)) from None
            url = step.url
            if not step.same_origin:
                login, at_home = (), False
        raise Failure(Verdict.AWAY, f"redirects more than {REDIRECTS_MAX} times")

    async def _failure(self, endpoint: Endpoint, answer: Answer) -> Failure:
        failure = await from_answer(answer)
        host = authority(urlsplit(answer.url))
        if host != endpoint.host:
            failure.words = f"{failure.words} from {host}"
            if failure.verdict is Verdict.DENIED:
                # A storage service's 403 is mostly a signature that ran out: a new redirect brings a new one.
                failure.verdict, failure.again = Verdict.AWAY, True
        if failure.verdict is Verdict.DENIED:
            failure.hint = self.auth.hint(endpoint)
        return failure


async def _close(answer: Answer) -> None:
    with cleanup(_CLOSE_SECONDS, "registry connection"):
        await answer.aclose()
