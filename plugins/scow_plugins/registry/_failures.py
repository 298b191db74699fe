"""What endpoints answered instead of what was asked, and the one error that comes of it.

A mirror's "no" is never the last word: only the registry itself can say that an image doesn't exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import msgspec

from scow.api import Denied, Named, NotFound, ScowError, Unavailable

from ._endpoints import Endpoint
from ._http import Answer, NoAnswer
from ._retry import parse_retry_after

ERROR_BODY_MAX = 64 * 1024
_WORDS_MAX = 200
#: Statuses after which the same request may work a moment later.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class Verdict(Enum):
    """What an endpoint's failure means for the search."""

    MISSING = "missing"
    DENIED = "denied"
    AWAY = "away"


class Failure(Exception):
    """One endpoint's failure. `again`: it may be asked again later, after `retry_after` seconds if it said so."""

    def __init__(
        self,
        verdict: Verdict,
        words: str,
        *,
        again: bool = False,
        retry_after: float | None = None,
        spoken: bool = True,
        hint: str | None = None,
        status: int = 0,
    ) -> None:
        super().__init__(words)
        self.verdict = verdict
        self.words = words
        self.again = again
        self.retry_after = retry_after
        self.spoken = spoken
        self.hint = hint
        #: The answer's, where there was one.
        self.status = status


class _ErrorLine(msgspec.Struct):
    code: str = ""
    message: str | None = None


class _ErrorBody(msgspec.Struct):
    errors: list[_ErrorLine] | None = None


def from_no_answer(error: NoAnswer) -> Failure:
    """The failure of an endpoint that couldn't be asked."""
    return Failure(Verdict.AWAY, str(error), again=error.again, spoken=error.spoken)


async def from_answer(answer: Answer) -> Failure:
    """The failure that a status other than 2xx means, with the registry's own words. Reads the body."""
    try:
        said = words_of(await answer.read(ERROR_BODY_MAX))
    except NoAnswer:
        said = ""
    status = answer.status
    words = f"status {status}" + (f" ({said})" if said else "")
    if status == 404:
        return Failure(Verdict.MISSING, words, status=status)
    if status in (401, 403):
        return Failure(Verdict.DENIED, words, status=status)
    if status == 429:
        return _rate_limited(answer, said)
    # A server with TLS answers plain HTTP with 400: that is not an answer to what was asked.
    spoken = status != 400
    retry_after = parse_retry_after(answer.header("retry-after"))
    return Failure(
        Verdict.AWAY, words, again=status in _TRANSIENT, retry_after=retry_after, spoken=spoken, status=status
    )


def _rate_limited(answer: Answer, said: str) -> Failure:
    limit, left = answer.header("ratelimit-limit"), answer.header("ratelimit-remaining")
    words = "too many requests"
    if limit:
        count, _, window = limit.partition(";w=")
        hours = f" in {int(window) / 3600:g} h" if window.isdigit() else ""
        words += f", the limit is {printable(count)}{hours}" + (f" and {left.split(';')[0]} are left" if left else "")
    words += f" ({said})" if said else ""
    return Failure(
        Verdict.AWAY,
        printable(words),
        again=True,
        retry_after=parse_retry_after(answer.header("retry-after")),
        hint="log in (scow login) for a higher limit, use a mirror, or wait",
    )


def words_of(body: bytes) -> str:
    """What the registry says in its error body (distribution-spec, "Error Codes"), cut and cleaned; may be empty."""
    try:
        errors = msgspec.json.decode(body, type=_ErrorBody).errors or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if not errors:
        return ""
    return printable(": ".join(part for part in (errors[0].code, errors[0].message) if part))


def printable(text: str) -> str:
    """A stranger's text, fit for one line of a message."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text[: _WORDS_MAX * 2])
    return " ".join(clean.split())[:_WORDS_MAX]


def to_error(what: str, domain: str, failures: Mapping[Endpoint, Failure]) -> ScowError:
    """The error for a search that failed everywhere; `what` is "image nginx:nope" or "blob sha256:…"."""
    for endpoint, failure in failures.items():
        if endpoint.mirror:
            continue
        if failure.verdict is Verdict.MISSING:
            return NotFound(f"{what} not found in {domain}", hint=failure.hint or "check the name and the tag")
        if failure.verdict is Verdict.DENIED:
            hint = failure.hint or f"it may not exist, or need a login: scow login{_server(domain)}"
            return Denied(f"{what}: {domain} denies access: {failure.words}", hint=hint)
    # Both schemes of a host mostly fail alike: said once.
    told = "; ".join(dict.fromkeys(f"{endpoint}: {failure.words}" for endpoint, failure in failures.items()))
    hints = [failure.hint for failure in failures.values() if failure.hint]
    waits = [failure.retry_after for failure in failures.values() if failure.retry_after is not None]
    return Unavailable(
        f"{what} is not to be had: {told}",
        hint=hints[0] if hints else "check the network and the registry's name, and try again",
        retry_after=min(waits) if waits else None,
    )


def push_error(what: str, name: Named, failure: Failure) -> ScowError:
    """The error for something that a registry doesn't take."""
    where = name.domain
    if failure.verdict is Verdict.MISSING:
        return NotFound(f"{what}: {where} has no place for {name.path}: {failure.words}", hint="check the name")
    if failure.verdict is Verdict.DENIED:
        hint = f"your login may not be allowed to write there; scow login{_server(where)}"
        return Denied(f"{what}: {where} denies access to {name.path}: {failure.words}", hint=hint)
    hint = failure.hint or "check the network and the registry, and push again: what is there isn't sent twice"
    return Unavailable(f"{what}: {where}: {failure.words}", hint=hint, retry_after=failure.retry_after)


def most_telling(failures: Mapping[Endpoint, Failure]) -> Failure:
    """Of the failures of one registry's endpoints: its answer, where it gave one; else all of them in one."""
    spoken = [failure for failure in failures.values() if failure.spoken]
    if spoken:
        return spoken[0]
    last = list(failures.values())[-1]
    last.words = "; ".join(f"{endpoint.scheme}: {failure.words}" for endpoint, failure in failures.items())
    return last


def _server(domain: str) -> str:
    return "" if domain == "docker.io" else f" {domain}"
