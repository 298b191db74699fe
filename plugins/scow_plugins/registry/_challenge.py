"""WWW-Authenticate, parsed (RFC 9110, section 11.6.1; distribution-spec, "token authentication"). Sans-IO.

The header is a stranger's text: whatever it holds, parsing ends in linear time, with what could be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

#: Longer headers are cut: no registry's challenge comes near.
_HEADER_MAX: Final = 8 * 1024
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SEPARATORS: Final = re.compile(r"[ \t,]*")
_EQUALS: Final = re.compile(r"[ \t]*=[ \t]*")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
_TOKEN68_REST: Final = re.compile(r"[A-Za-z0-9._~+/=-]*")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in that a server offers: `scheme` and the parameters' names are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """All challenges of all WWW-Authenticate headers, in order. Never raises."""
    return tuple(challenge for header in headers for challenge in _parse(header[:_HEADER_MAX]))


def pick(challenges: Iterable[Challenge]) -> Challenge | None:
    """The challenge to answer: Bearer with a realm if there is one, else Basic, else none."""
    offered = tuple(challenges)
    for challenge in offered:
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
    return next((challenge for challenge in offered if challenge.scheme == "basic"), None)


def _parse(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(text):
        at = _end(_SEPARATORS, text, at)
        word = _TOKEN.match(text, at)
        if word is None:
            at += 1
            continue
        at = word.end()
        equals = _EQUALS.match(text, at) if found else None
        if equals is None:
            found.append((word[0].lower(), {}))
            continue
        value, at = _value(text, equals.end())
        if value is not None:
            found[-1][1].setdefault(word[0].lower(), value)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _value(text: str, at: int) -> tuple[str | None, int]:
    """A parameter's value and where it ends; None for the `=` padding of a token68."""
    quoted = _QUOTED.match(text, at)
    if quoted is not None:
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted.end()
    word = _TOKEN.match(text, at)
    if word is not None and text[word.end() : word.end() + 1] not in ("/", "=", ":"):
        return word[0], word.end()
    if word is not None and text[word.end()] == ":":
        # realm=https://… without quotes, as sloppy servers write it: up to the comma.
        rest, _, _ = text[at:].partition(",")
        return rest.strip(), at + len(rest)
    return None, _end(_TOKEN68_REST, text, at)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
