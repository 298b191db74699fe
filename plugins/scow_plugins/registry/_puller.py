"""The search for an image or a blob: every endpoint in order, several rounds, one error at the end.

Connections, tokens and the knowledge of who is down belong to one trio run and end with it: two engines in one
process share nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import trio

from scow.api import Descriptor, Found, Named, Platform, Resolved, Sink

from ._accounts import check_login, keep_login, server_name
from ._blob import fetch_blob
from ._catalog import list_tags, search_endpoints, search_images
from ._credentials import Credentials
from ._endpoints import DOCKER_HUB, Endpoint, Rules
from ._failures import Failure, Verdict, to_error
from ._manifest import resolve_image
from ._push import Pusher, choose_endpoint
from ._retry import Policy
from ._session import Session
from ._settings import Settings
from ._split import Splitting

T = TypeVar("T")
#: How long an endpoint that couldn't be reached is asked last.
_DOWN_SECONDS = 30.0
#: A blob that comes in pieces gets this many rounds in all, however small the pieces are.
_PIECES_MAX = 100


class _Run:
    """What lives as long as one trio run."""

    def __init__(self, rules: Rules, policy: Policy, splitting: Splitting) -> None:
        self.session = Session(rules, policy)
        self.splitting = splitting
        self.down: dict[str, float] = {}
        #: The endpoints that have answered something, so that their scheme is known to be right.
        self.spoken: set[str] = set()


class Puller:
    """Does what the plugin's claims promise."""

    def __init__(self, settings: Settings, policy: Policy | None = None) -> None:
        self._settings = settings
        self._rules = Rules(settings)
        self._policy = policy or Policy()
        self._runs: trio.lowlevel.RunVar[_Run] = trio.lowlevel.RunVar("scow.registry")

    async def resolve(self, name: Named, platform: Platform) -> Resolved:
        """See the hook. Raises NotFound, Unavailable, Denied, Unsupported, Corrupt."""
        session = self._run().session

        async def ask(endpoint: Endpoint) -> Resolved:
            return await resolve_image(session, endpoint, name, platform)

        # What a mirror says about a digest can be checked; about a tag it must be trusted.
        endpoints = self._rules.endpoints(name.domain, "pull" if name.digest else "resolve")
        return await self._search(f"image {name.familiar}", name.domain, ask, endpoints)

    async def fetch(self, location: str, descriptor: Descriptor, sink: Sink) -> None:
        """See the hook; `location` is `domain/path`. Raises NotFound, Unavailable, Denied, Corrupt."""
        run = self._run()
        domain, _, path = location.partition("/")

        async def ask(endpoint: Endpoint) -> None:
            await fetch_blob(run.session, endpoint, path, descriptor, sink, run.splitting)

        endpoints = self._rules.endpoints(domain, "pull")
        await self._search(f"blob {descriptor.digest} of {location}", domain, ask, endpoints, lambda: sink.offset)

    async def tags(self, name: Named) -> tuple[str, ...]:
        """See `Catalog`."""
        session = self._run().session

        async def ask(endpoint: Endpoint) -> tuple[str, ...]:
            return await list_tags(session, endpoint, name)

        what = f"repository {name.repository}"
        return await self._search(what, name.domain, ask, self._rules.endpoints(name.domain, "resolve"))

    async def search(self, term: str, limit: int) -> tuple[Found, ...]:
        """See `Catalog`; `HOST/TERM` searches another registry than Docker Hub."""
        session = self._run().session
        first, slash, rest = term.partition("/")
        elsewhere = slash and ("." in first or ":" in first or first == "localhost")
        domain, words = (server_name(first), rest) if elsewhere else (DOCKER_HUB, term)

        async def ask(endpoint: Endpoint) -> tuple[Found, ...]:
            return await search_images(session, endpoint, words, limit)

        endpoints = search_endpoints(domain, self._rules.endpoints(domain))
        return await self._search(f"search for {words!r} in {domain}", domain, ask, endpoints)

    async def login(self, server: str, username: str, password: str) -> str:
        """See `Accounts`."""
        domain, login = server_name(server), Credentials(username, password)
        await check_login(self._run().session, self._rules, domain, login)
        return await keep_login(domain, login)

    @asynccontextmanager
    async def publish(self, name: Named) -> AsyncIterator[Pusher]:
        """See `Publisher`."""
        session = self._run().session
        endpoint = await choose_endpoint(session, self._rules, name)
        yield Pusher(session, self._rules, endpoint, name, self._policy)

    async def _search(
        self,
        what: str,
        domain: str,
        ask: Callable[[Endpoint], Awaitable[T]],
        endpoints: tuple[Endpoint, ...],
        progress: Callable[[], int] = lambda: 0,
    ) -> T:
        failures: dict[Endpoint, Failure] = {}
        fruitless, furthest = 0, progress()
        for _ in range(_PIECES_MAX):
            for endpoint in self._in_order(endpoints):
                if not _worth_asking(endpoint, endpoints, failures):
                    continue
                try:
                    answer = await ask(endpoint)
                except Failure as failure:
                    failures[endpoint] = failure
                    self._note(endpoint, failure)
                else:
                    self._run().spoken.add(endpoint.base)
                    return answer
            # Getting again what was thrown away is no progress: a blob shorter than promised would come for ever.
            fruitless = 0 if progress() > furthest else fruitless + 1
            furthest = max(furthest, progress())
            pause = self._pause(max(fruitless, 1), failures)
            if pause is None:
                break
            await trio.sleep(pause)
        raise to_error(what, domain, failures)

    def _pause(self, done: int, failures: dict[Endpoint, Failure]) -> float | None:
        """How long until the next round; None when no endpoint would say anything else."""
        hopeful = [failure for failure in failures.values() if failure.again]
        # The registry's own "no" is final, whatever a mirror may say later.
        final = any(not e.mirror and f.verdict is not Verdict.AWAY for e, f in failures.items())
        if not hopeful or final:
            return None
        pauses = [self._policy.pause(done, failure.retry_after) for failure in hopeful]
        return min((pause for pause in pauses if pause is not None), default=None)

    def _in_order(self, endpoints: tuple[Endpoint, ...]) -> list[Endpoint]:
        down, now = self._run().down, trio.current_time()
        return sorted(endpoints, key=lambda endpoint: down.get(endpoint.base, 0.0) > now)

    def _note(self, endpoint: Endpoint, failure: Failure) -> None:
        run = self._run()
        # Who has answered before and now ends a connection early has a bad moment, not another scheme.
        failure.spoken |= failure.again and endpoint.base in run.spoken
        if failure.spoken:
            run.spoken.add(endpoint.base)
        else:
            run.down[endpoint.base] = trio.current_time() + _DOWN_SECONDS

    def _splitting(self) -> Splitting:
        settings, policy = self._settings, self._policy
        return Splitting(settings.connections, settings.split_from, policy.slow, policy.slow_after)

    def _run(self) -> _Run:
        try:
            return self._runs.get()
        except LookupError:
            run = _Run(self._rules, self._policy, self._splitting())
            self._runs.set(run)
            trio.lowlevel.spawn_system_task(_close_at_end, run, name="scow.registry")
            return run


def _worth_asking(endpoint: Endpoint, endpoints: tuple[Endpoint, ...], failures: dict[Endpoint, Failure]) -> bool:
    """Not twice what wouldn't change; the other scheme of a host only when the first couldn't be spoken to."""
    failed = failures.get(endpoint)
    if failed is not None and not failed.again:
        return False
    siblings = [other for other in endpoints if other.host == endpoint.host and other is not endpoint]
    return not any(failures[other].spoken for other in siblings if other in failures and not other.mirror)


async def _close_at_end(run: _Run) -> None:
    """System tasks are cancelled when a trio run ends: the one moment to close what the run had open."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True), suppress(Exception):
            await run.session.client.aclose()
