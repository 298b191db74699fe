"""The configuration's `registries` table, read and checked.

    [registries."docker.io"]
    mirrors = ["http://127.0.0.1:5000"]     # tried in order, then the registry itself

    [registries."registry.example:5000"]
    mirrors = [{url = "https://mirror.example", capabilities = ["pull"]}]
    ca = "/etc/scow/ca.pem"                 # authorities beside the system's
    cert = "/etc/scow/client.pem"           # a client certificate, and its key
    key = "/etc/scow/client.key"
    insecure = false

    [plugins.registry]
    connections = 4                         # for one large blob that comes slowly
    split_from = 33554432                   # bytes of it that must be left

Everything is checked here, once, so that no other module meets a mirror that is no URL.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec

from scow.api import Invalid, Named, parse_named

#: What a mirror may be asked: blobs and manifests by digest, what a tag means, to take an image in.
Capability = Literal["pull", "resolve", "push"]


class MirrorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mirror, `scheme://host[:port]`, and what it is asked for."""

    url: str
    capabilities: tuple[Capability, ...] = ("pull", "resolve")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for one host: authorities, a client certificate and its key; empty: none."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one registry is asked. Mirrors stand in the order in which they are tried."""

    mirrors: tuple[str | MirrorSettings, ...] = ()
    #: Authorities to believe beside the system's, a client certificate and its key: absolute paths of PEM files.
    ca: str = ""
    cert: str = ""
    key: str = ""
    #: Plain HTTP is allowed, and a TLS certificate isn't checked.
    insecure: bool = False

    @property
    def all_mirrors(self) -> tuple[MirrorSettings, ...]:
        """The mirrors, those written as a mere URL too."""
        return tuple(MirrorSettings(each) if isinstance(each, str) else each for each in self.mirrors)


class Settings(msgspec.Struct, frozen=True):
    """All of it, by the domain as it stands in an image's full name (`docker.io`, `localhost:5000`)."""

    registries: Mapping[str, RegistrySettings] = {}
    #: Connections over which parts of large blobs come, all together; 1: never more than one for a blob.
    connections: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4
    #: Bytes of a blob that must be left, for more connections to be worth it.
    split_from: Annotated[int, msgspec.Meta(ge=0)] = 32 << 20

    def of(self, domain: str) -> RegistrySettings:
        """The settings for a registry; defaults when it isn't named."""
        return self.registries.get(domain, _DEFAULTS)


_DEFAULTS = RegistrySettings()


def read_settings(raw: Mapping[str, Any]) -> Settings:
    """`{"registries": {domain: {…}}, …}` as Settings. Raises Invalid, naming the key and the registry."""
    known = [field.name for field in msgspec.structs.fields(Settings) if field.name != "registries"]
    for key in raw:
        if key not in (*known, "registries"):
            raise Invalid(f"configuration: plugins.registry has no key {key!r}", hint=f"it knows {', '.join(known)}")
    try:
        plain = msgspec.convert({key: raw[key] for key in known if key in raw}, type=Settings)
    except msgspec.ValidationError as error:
        raise Invalid(f"configuration: plugins.registry: {error}") from None
    tables = raw.get("registries", {})
    if not isinstance(tables, Mapping):
        raise Invalid("configuration: registries is not a table", hint='write [registries."docker.io"]')
    read = {_domain(domain): _table(domain, table) for domain, table in tables.items()}
    return msgspec.structs.replace(plain, registries=read)


def _domain(domain: str) -> str:
    try:
        named = parse_named(f"{domain}/a/a")
    except Invalid:
        named = Named("", "", None, None)
    if not named.path == "a/a":
        raise Invalid(
            f"configuration: registries.{domain!r} is not a registry's host name",
            hint='write it as in an image\'s full name, as in [registries."registry.example:5000"]',
        )
    return named.domain


def _table(domain: str, table: Any) -> RegistrySettings:
    where = f'configuration: registries."{domain}"'
    if not isinstance(table, Mapping):
        raise Invalid(f"{where} is not a table")
    known = [field.name for field in msgspec.structs.fields(RegistrySettings)]
    for key in table:
        if key not in known:
            raise Invalid(f"{where} has no key {key!r}", hint=f"it knows {', '.join(known)}")
    try:
        settings = msgspec.convert(dict(table), type=RegistrySettings)
    except msgspec.ValidationError as error:
        raise Invalid(f"{where}: {error}") from None
    for mirror in settings.all_mirrors:
        _check_mirror(where, mirror.url)
        if not mirror.capabilities:
            raise Invalid(f"{where}: mirror {mirror.url!r} has no capabilities", hint="pull, resolve, push")
    _check_files(where, settings)
    return settings


def _check_files(where: str, settings: RegistrySettings) -> None:
    for name in ("ca", "cert", "key"):
        path = getattr(settings, name)
        if path and not os.path.isabs(path):
            raise Invalid(f"{where}: {name} = {path!r} is not an absolute path")
    if settings.key and not settings.cert:
        raise Invalid(f"{where} has a key but no cert", hint="key belongs to the client certificate in cert")


def _check_mirror(where: str, mirror: str) -> None:
    hint = "write it as https://host or http://host:port, without a path"
    try:
        parts = urlsplit(mirror)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Invalid(f"{where}: mirror {mirror!r} is not a URL", hint=hint) from None
    if parts.username is not None or parts.password is not None:
        raise Invalid(f"{where}: a mirror's URL holds a password", hint="keep it in ~/.docker/config.json (scow login)")
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme not in ("http", "https") or not host or extra:
        raise Invalid(f"{where}: mirror {mirror!r} is not a registry's URL", hint=hint)
    if not mirror.isascii() or not mirror.isprintable() or " " in mirror:
        raise Invalid(f"{where}: mirror {mirror!r} holds characters that no host name has", hint=hint)
