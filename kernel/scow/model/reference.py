"""Image names, parsed and normalised exactly as Docker does (the grammar of github.com/distribution/reference).

    nginx                      docker.io/library/nginx:latest
    user/repo:1.2              docker.io/user/repo:1.2
    localhost:5000/a@sha256:…  localhost:5000/a@sha256:…
    host:                      the transport `host`, with nothing behind it

A name that begins with a transport and a colon (`host:`, `oci:DIR`) is a `Located`; every other is a `Named`.
Which transports there are is for the caller to say: each resolve plugin but the default one is a transport.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from scow.errors import Invalid
from scow.model.digest import Digest

DEFAULT_DOMAIN: Final = "docker.io"
DEFAULT_TAG: Final = "latest"
#: Domain and path together (distribution/reference, NameTotalLengthMax: 255 is what is allowed for the path).
_PATH_MAX: Final = 255

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DOMAIN_COMPONENT: Final = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN: Final = re.compile(rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?")
_ID: Final = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Named:
    """A name in a registry. At least one of `tag` and `digest` is set; when both are, the digest decides."""

    domain: str
    path: str
    tag: str | None
    digest: Digest | None

    @property
    def repository(self) -> str:
        """`domain/path`, without tag and digest."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar(self) -> str:
        """The shortest form that means the same, as `images` shows it (`nginx:1.2`)."""
        name = self.repository
        if self.domain == DEFAULT_DOMAIN:
            name = self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path
        return name + self._suffix()

    def __str__(self) -> str:
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return tag + (f"@{self.digest}" if self.digest is not None else "")

    def pinned(self, digest: Digest) -> Named:
        """The same repository at `digest`."""
        return replace(self, tag=None, digest=digest)


@dataclass(frozen=True, slots=True)
class Located:
    """An image that lies somewhere else than in a registry: `transport:rest`."""

    transport: str
    rest: str

    def __str__(self) -> str:
        return f"{self.transport}:{self.rest}"

    @property
    def familiar(self) -> str:
        """As the user wrote it."""
        return str(self)


Reference = Named | Located


def parse_reference(text: str, transports: Collection[str] = ("host",)) -> Reference:
    """Read an image's name as a user writes it. Raises Invalid, saying which part is wrong."""
    transport, colon, rest = text.partition(":")
    if colon and transport in transports:
        return Located(transport, rest)
    return parse_named(text)


def parse_named(text: str) -> Named:
    """Read and normalise a registry name: default domain, `library/`, `latest`. Raises Invalid."""
    if not text:
        raise Invalid("an image's name is empty")
    if _ID.fullmatch(text):
        raise Invalid(f"image name {text!r} can't be 64 hex digits: that is how image IDs are written")
    name, digest = _split_digest(text)
    name, tag = _split_tag(name, text)
    domain, path = _split_domain(name)
    _check_path(path, text)
    if not _DOMAIN.fullmatch(domain):
        raise Invalid(f"image name {text!r}: {domain!r} is not a registry's host name")
    if tag is not None and not _TAG.fullmatch(tag):
        raise Invalid(f"image name {text!r}: {tag!r} is not a valid tag")
    if tag is None and digest is None:
        tag = DEFAULT_TAG
    return Named(domain, path, tag, digest)


def _split_digest(text: str) -> tuple[str, Digest | None]:
    name, at, digest = text.partition("@")
    return name, Digest.parse(digest) if at else None


def _split_tag(name: str, text: str) -> tuple[str, str | None]:
    slash, colon = name.rfind("/"), name.rfind(":")
    if colon <= slash:
        return name, None
    if slash < 0 and name.startswith("[") and name.endswith("]"):
        raise Invalid(f"image name {text!r} names a registry but no image")
    return name[:colon], name[colon + 1 :]


def _split_domain(name: str) -> tuple[str, str]:
    """Docker's rule: the first component is a host only if it looks like one (splitDockerDomain)."""
    first, slash, rest = name.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    domain, path = (first, rest) if is_host else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _check_path(path: str, text: str) -> None:
    if path.lower() != path and _PATH.fullmatch(path.lower()):
        raise Invalid(f"image name {text!r} must be lower case", hint=f"write {text.lower()!r}")
    if len(path) > _PATH_MAX:
        raise Invalid(f"image name {text[:40]!r}… is longer than {_PATH_MAX} characters")
    if not _PATH.fullmatch(path):
        raise Invalid(f"image name {text!r} is not valid", hint="a name is [registry/]path[:tag][@digest]")
