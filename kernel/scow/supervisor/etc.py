"""The files that the engine writes for a container: /etc/hosts, /etc/hostname, /etc/resolv.conf."""

from __future__ import annotations

from pathlib import Path

from scow.model.container import ContainerSpec
from scow.model.network import Endpoint


def write_etc(directory: Path, spec: ContainerSpec, endpoint: Endpoint) -> tuple[tuple[str, str], ...]:
    """Write the three files into a directory; gives (path on the host, path inside) for each. Raises OSError."""
    contents = {
        "hostname": f"{spec.isolation.hostname}\n",
        "hosts": hosts(spec, endpoint),
        "resolv.conf": resolv_conf(spec, endpoint),
    }
    pairs = []
    for name, text in contents.items():
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)
        pairs.append((str(path), f"/etc/{name}"))
    return tuple(pairs)


def hosts(spec: ContainerSpec, endpoint: Endpoint) -> str:
    """/etc/hosts as Docker writes it (hosts(5))."""
    if endpoint.netns is None:
        return _host_file("/etc/hosts") + _lines(spec.extra_hosts)
    names = spec.isolation.hostname
    if spec.isolation.domainname:
        names = f"{names}.{spec.isolation.domainname} {names}"
    own = [(str(address.ip), names) for address in endpoint.addresses]
    fixed = [
        ("127.0.0.1", "localhost"),
        ("::1", "localhost ip6-localhost ip6-loopback"),
        ("fe00::0", "ip6-localnet"),
        ("ff00::0", "ip6-mcastprefix"),
        ("ff02::1", "ip6-allnodes"),
        ("ff02::2", "ip6-allrouters"),
    ]
    others = [(address, " ".join(aliases)) for address, aliases in endpoint.hosts]
    extra = [(endpoint.gateway if address == "host-gateway" else address, name) for name, address in spec.extra_hosts]
    return "".join(f"{address}\t{name}\n" for address, name in [*fixed, *others, *extra, *own])


def resolv_conf(spec: ContainerSpec, endpoint: Endpoint) -> str:
    """/etc/resolv.conf: what the user gave, else the network plugin's, else the host's own (resolv.conf(5))."""
    nameservers = spec.nameservers or endpoint.nameservers
    host = {} if nameservers else _host_resolver()
    if host and not spec.search and not spec.dns_options:
        return _host_file("/etc/resolv.conf")
    lines = [f"nameserver {server}" for server in nameservers or host.get("nameserver", ())]
    search = spec.search or endpoint.search or host.get("search", ())
    # Docker's word for none.
    if search and tuple(search) != (".",):
        lines.append("search " + " ".join(search))
    if options := spec.dns_options or endpoint.dns_options or host.get("options", ()):
        lines.append("options " + " ".join(options))
    return "\n".join(lines) + "\n"


def _host_resolver() -> dict[str, list[str]]:
    """The host's own settings: all nameservers, of the other keywords the last line counts (resolv.conf(5))."""
    found: dict[str, list[str]] = {"nameserver": []}
    for line in _host_file("/etc/resolv.conf").splitlines():
        keyword, *values = line.split() or [""]
        if keyword == "nameserver":
            found[keyword] += values[:1]
        elif keyword in ("search", "domain", "options"):
            found["search" if keyword == "domain" else keyword] = values
    return found


def _lines(extra: tuple[tuple[str, str], ...]) -> str:
    return "".join(f"{'127.0.0.1' if address == 'host-gateway' else address}\t{name}\n" for name, address in extra)


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""
