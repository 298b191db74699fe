"""Which proxy a URL is asked through, by the usual environment variables. Pure.

As curl and Go read them: `https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`, in lower or upper case. Loopback
addresses never go through a proxy.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from ._endpoints import is_loopback


def proxy_for(url: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The proxy's URL, or None to go straight."""
    parts = urlsplit(url)
    if is_loopback(parts.netloc) or _excluded(parts.hostname or "", parts.port, _variable("no_proxy", environ)):
        return None
    proxy = _variable(f"{parts.scheme}_proxy", environ) or _variable("all_proxy", environ)
    if not proxy:
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _variable(name: str, environ: Mapping[str, str]) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _excluded(host: str, port: int | None, rules: str) -> bool:
    return any(_matches(host, port, rule.strip().lower()) for rule in rules.split(",") if rule.strip())


def _matches(host: str, port: int | None, rule: str) -> bool:
    if rule == "*":
        return True
    if "/" in rule:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    name, colon, wanted = rule.rpartition(":")
    if colon and wanted.isdigit() and not name.endswith(":"):
        if port is not None and str(port) != wanted:
            return False
        rule = name
    rule = rule.removeprefix("*").removeprefix(".")
    return host == rule or host.endswith(f".{rule}")
