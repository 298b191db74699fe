"""What a registry knows beside images: the tags of a repository, and Docker Hub's search.

distribution-spec, "Content discovery" (tags, in pages by Link); the search is of the first registry protocol
(`/v1/search`) and still Docker Hub's own.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlencode, urljoin

import msgspec

from scow.api import Found, Named

from ._endpoints import DOCKER_HUB, Endpoint
from ._failures import Failure, Verdict, from_no_answer, printable
from ._http import Answer, NoAnswer
from ._session import Session

_BODY_MAX: Final = 8 * 1024 * 1024
#: A thousand tags a page, mostly; nobody has more pages than this.
_PAGES_MAX: Final = 1000
_NEXT: Final = re.compile(r"""<([^>]{1,4096})>\s*;\s*rel\s*=\s*"?next"?""", re.IGNORECASE)
_SEARCH_HOST: Final = "index.docker.io"


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Line(msgspec.Struct):
    name: str
    description: str | None = None
    star_count: int = 0
    is_official: bool = False
    is_automated: bool = False


class _Page(msgspec.Struct):
    results: list[_Line] | None = None


async def list_tags(session: Session, endpoint: Endpoint, name: Named) -> tuple[str, ...]:
    """Every tag of a repository. Raises Failure."""
    url = f"{endpoint.base}/v2/{name.path}/tags/list?n=1000"
    tags: dict[str, None] = {}
    for _ in range(_PAGES_MAX):
        async with session.ask("GET", endpoint, url, f"repository:{name.path}:pull") as answer:
            page: _Tags = await _decoded(answer, _Tags, "tags")
            link = _NEXT.search(answer.header("link") or "")
        tags.update(dict.fromkeys(page.tags or ()))
        if link is None:
            return tuple(tags)
        url = _next_page(url, link[1], endpoint)
    raise Failure(Verdict.AWAY, f"has more than {_PAGES_MAX} pages of tags")


def _next_page(url: str, link: str, endpoint: Endpoint) -> str:
    """A stranger's text as the URL that is asked next, with our login. Raises Failure."""
    try:
        joined = urljoin(url, link)
    except ValueError:
        joined = ""
    if not joined.isascii() or not joined.isprintable() or " " in joined:
        joined = ""
    if not joined.startswith(endpoint.base + "/"):
        raise Failure(Verdict.AWAY, "has its next page of tags on another host")
    return joined


async def search_images(session: Session, endpoint: Endpoint, term: str, limit: int) -> tuple[Found, ...]:
    """The first `limit` lines that fit `term`. Raises Failure."""
    url = f"{endpoint.base}/v1/search?{urlencode({'q': term, 'n': limit})}"
    async with session.ask("GET", endpoint, url, "") as answer:
        page: _Page = await _decoded(answer, _Page, "search results")
    return tuple(
        Found(
            printable(line.name),
            printable(line.description or ""),
            line.star_count,
            line.is_official,
            line.is_automated,
        )
        for line in (page.results or ())[:limit]
    )


def search_endpoints(domain: str, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Where a registry is searched: Docker Hub's search has a host of its own; its mirrors have none."""
    if domain == DOCKER_HUB:
        return (Endpoint("https", _SEARCH_HOST, DOCKER_HUB),)
    return tuple(endpoint for endpoint in endpoints if not endpoint.mirror)


async def _decoded(answer: Answer, shape: Any, what: str) -> Any:
    try:
        body = await answer.read(_BODY_MAX)
    except NoAnswer as error:
        raise from_no_answer(error) from None
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Failure(Verdict.AWAY, f"answers with something that is no list of {what}") from None
