"""Where a redirect leads, and whether credentials may come along. Pure.

RFC 9110, section 15.4. A Location is a stranger's text: it may not lead off TLS, to other schemes, or carry a login.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from ._endpoints import Rules, authority

#: A registry, its front, a storage service and its region make four; more is a loop.
REDIRECTS_MAX: Final = 8
_URL_MAX: Final = 16 * 1024


class Refused(Exception):
    """The redirect isn't followed; the text says why, without the URL's query (which may be a signature)."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next URL, and whether it is of the same scheme, host and port."""

    url: str
    same_origin: bool


def next_step(url: str, location: str, rules: Rules) -> Step:
    """What to ask after `url` answered with `location`. Raises Refused."""
    if not location or len(location) > _URL_MAX or not location.isascii() or not location.isprintable():
        raise Refused("redirects to something that is no URL")
    try:
        here = urlsplit(url)
        target = urlsplit(urljoin(url, location.replace(" ", "%20")))
        host = authority(target)
    except ValueError:
        raise Refused("redirects to something that is no URL") from None
    if not may_leave(here.scheme, target.scheme, host, rules):
        raise Refused(f"redirects to {target.scheme or 'no'}://{host}, which is not encrypted")
    clean = target._replace(netloc=host, fragment="").geturl()
    return Step(clean, (here.scheme, authority(here)) == (target.scheme, host))


def may_leave(scheme: str, target_scheme: str, target_host: str, rules: Rules) -> bool:
    """Whether a host reached over `scheme` may send us on to `target_host`: never down from TLS."""
    if target_scheme == "https":
        return True
    return target_scheme == "http" and scheme == "http" and rules.plain_ok(target_host)
