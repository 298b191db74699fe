"""Which hosts are asked for a registry's images, over which scheme, and where plain HTTP is allowed. Pure.

Plain HTTP only for loopback addresses, mirrors written with http://, and registries named insecure.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ._settings import Capability, MirrorSettings, Settings, TlsFiles

DOCKER_HUB: Final = "docker.io"
#: The host behind the name `docker.io` (the name itself serves a web site).
_API_HOSTS: Final = {DOCKER_HUB: "registry-1.docker.io"}
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to ask for a registry's images."""

    scheme: str
    #: Host with port where that isn't the scheme's own.
    host: str
    #: Whose credentials are sent: the registry's name, or the mirror's own host.
    login: str
    mirror: bool = False
    #: The other scheme of the endpoint before: asked only when that one couldn't be spoken to at all.
    fallback: bool = False

    @property
    def base(self) -> str:
        """`scheme://host`, to which paths are appended."""
        return f"{self.scheme}://{self.host}"

    def __str__(self) -> str:
        return f"mirror {self.base}" if self.mirror else self.host


class Rules:
    """The settings as answers: which endpoints, and where plain HTTP or an unchecked certificate is fine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._insecure = {_API_HOSTS.get(domain, domain) for domain, s in settings.registries.items() if s.insecure}
        mirrors = [mirror.url for s in settings.registries.values() for mirror in s.all_mirrors]
        self._files = {
            _API_HOSTS.get(domain, domain): TlsFiles(s.ca, s.cert, s.key) for domain, s in settings.registries.items()
        }
        self._plain_mirrors = {authority(urlsplit(mirror)) for mirror in mirrors if mirror.startswith("http://")}

    def endpoints(self, domain: str, capability: Capability = "pull") -> tuple[Endpoint, ...]:
        """Where to ask for images of `domain`: mirrors that can do that in order, then the registry itself."""
        mirrors = self._settings.of(domain).all_mirrors
        found = [_mirror(mirror) for mirror in mirrors if capability in mirror.capabilities]
        host = _API_HOSTS.get(domain, domain)
        # What listens on loopback is a registry without TLS nearly always; insecure ones mostly have a bad certificate.
        schemes: tuple[str, ...] = ("https",)
        if is_loopback(host):
            schemes = ("http", "https")
        elif host in self._insecure:
            schemes = ("https", "http")
        found += [Endpoint(scheme, host, domain, fallback=n > 0) for n, scheme in enumerate(schemes)]
        return tuple(found)

    def plain_ok(self, host: str) -> bool:
        """Whether `host` (with its port) may be spoken to without TLS."""
        return is_loopback(host) or host in self._insecure or host in self._plain_mirrors

    def certificate_checked(self, host: str) -> bool:
        """Whether `host` (with its port) must show a valid certificate."""
        return host not in self._insecure

    def tls_files(self, host: str) -> TlsFiles:
        """The authorities and the client certificate that are configured for `host` (with its port)."""
        return self._files.get(host, TlsFiles())


def _mirror(mirror: MirrorSettings) -> Endpoint:
    parts = urlsplit(mirror.url)
    host = authority(parts)
    return Endpoint(parts.scheme, host, host, mirror=True)


def authority(parts: SplitResult) -> str:
    """`host[:port]` in lower case, without user and without the scheme's own port. Raises ValueError."""
    host, port = (parts.hostname or "").lower(), parts.port
    if not host:
        raise ValueError("no host")
    if ":" in host:
        host = f"[{host}]"
    return host if port is None or port == _PORTS.get(parts.scheme) else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine by its very name: localhost, 127.0.0.0/8, ::1. Nothing is looked up."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
