"""The flags of `run` and `create` as the engine's request. Reads files and environment; decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from scow.api import Invalid, NotFound, Platform, PortMapping, Resources, Restart, Unsupported, parse_ports
from scow.engine import CreateRequest
from scow_plugins.cli._files import read_named
from scow_plugins.cli._flags import Args, UsageError
from scow_plugins.cli._mounts import mounts
from scow_plugins.cli._ulimits import ulimits

_POLICIES = ("no", "on-failure", "always", "unless-stopped")
#: Bytes of a file of variables or labels.
_FILE_MAX = 1 << 20
_SHM_SIZE = 64 * 1024 * 1024


def create_request(
    args: Args, environ: Mapping[str, str], *, detached: bool = False, size: tuple[int, int] = (0, 0)
) -> CreateRequest:
    """What to create. `size`: rows and columns of the user's terminal. Raises Invalid, NotFound, Unsupported."""
    image, *rest = args.words
    entrypoint = args.text("entrypoint")
    seccomp, no_new_privileges, unmasked = _security(args.all("security-opt"))
    restart = _restart(args.text("restart") or "no")
    if restart.policy != "no" and args.on("rm"):
        raise Invalid("--restart and --rm exclude each other")
    return CreateRequest(
        image=image,
        args=tuple(rest),
        name=args.text("name") or None,
        entrypoint=None if entrypoint is None else (entrypoint,) if entrypoint else (),
        env=environment(args, environ),
        workdir=args.text("workdir"),
        user=args.text("user"),
        groups=args.all("group-add"),
        tty=args.on("tty"),
        stdin_open=args.on("interactive"),
        stdin_once=args.on("interactive") and not detached,
        hostname=args.text("hostname"),
        domainname=args.text("domainname") or "",
        storage=args.text("storage"),
        network=_network(args.text("network")),
        runtime=args.text("runtime"),
        ports=_ports(args.all("publish")),
        publish_all=args.on("publish-all"),
        expose=_expose(args.all("expose")),
        mounts=mounts(args),
        resources=_resources(args),
        privileged=args.on("privileged"),
        cap_add=args.all("cap-add"),
        cap_drop=args.all("cap-drop"),
        read_only=args.on("read-only"),
        seccomp=seccomp,
        no_new_privileges=no_new_privileges,
        unmasked=unmasked,
        sysctls=tuple(_pair(text, "--sysctl") for text in args.all("sysctl")),
        init=args.on("init"),
        labels=_labels(args),
        auto_remove=args.on("rm"),
        detached=detached,
        stop_signal=args.text("stop-signal"),
        stop_timeout=args.decimal("stop-timeout"),
        restart=restart,
        nameservers=args.all("dns"),
        search=args.all("dns-search"),
        dns_options=args.all("dns-option"),
        extra_hosts=tuple(_host(text) for text in args.all("add-host")),
        platform=_platform(args.text("platform")),
        pull=_pull(args.text("pull") or "missing"),
        rows=size[0],
        columns=size[1],
    )


def environment(args: Args, environ: Mapping[str, str]) -> tuple[str, ...]:
    """--env-file first, then -e. `-e NAME` is the user's own value; where there is none, the image's is removed."""
    entries: list[str] = []
    for path in args.all("env-file"):
        for line in _lines(path, "--env-file"):
            name = line.partition("=")[0]
            if not name or any(char.isspace() for char in name):
                raise Invalid(f"environment file {path}: {line!r} has no valid name")
            if "=" in line:
                entries.append(line)
            elif name in environ:
                entries.append(f"{name}={environ[name]}")
    for text in args.all("env"):
        name, equals, _ = text.partition("=")
        if not name:
            raise Invalid(f"environment variable {text!r} has no name")
        entries.append(text if equals or name not in environ else f"{name}={environ[name]}")
    return tuple(entries)


def _lines(path: str, flag: str) -> list[str]:
    try:
        text = read_named(path, _FILE_MAX, f"{flag} {path}").decode("utf-8-sig")
    except OSError as error:
        raise NotFound(f"{flag} {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Invalid(f"{flag} {path} is not UTF-8") from None
    lines = [line.rstrip("\r").lstrip() for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def _labels(args: Args) -> tuple[tuple[str, str], ...]:
    lines = [line for path in args.all("label-file") for line in _lines(path, "--label-file")]
    labels: dict[str, str] = {}
    for text in (*lines, *args.all("label")):
        key, _, value = text.partition("=")
        if not key:
            raise Invalid(f"label {text!r} has no name")
        labels[key] = value
    return tuple(labels.items())


def _resources(args: Args) -> Resources:
    pids = args.number("pids-limit") or 0
    return Resources(
        memory=args.number("memory") or None,
        memory_swap=args.number("memory-swap") or None,
        cpus=args.decimal("cpus") or None,
        cpu_shares=args.number("cpu-shares") or None,
        cpuset_cpus=args.text("cpuset-cpus") or "",
        pids=pids if pids > 0 else None,
        shm_size=args.number("shm-size") or _SHM_SIZE,
        ulimits=ulimits(args),
        cgroup_parent=args.text("cgroup-parent") or "",
    )


def _ports(texts: tuple[str, ...]) -> tuple[PortMapping, ...]:
    return tuple(dict.fromkeys(port for text in texts for port in parse_ports(text)))


def _expose(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Each port for itself, as image configurations write them: `80/tcp`."""
    ports = []
    for text in texts:
        if ":" in text:
            raise Invalid(f"--expose {text!r} has a colon", hint="to publish a port use -p")
        ports += [f"{port.container_port}/{port.protocol}" for port in parse_ports(text)]
    return tuple(dict.fromkeys(ports))


def _network(text: str | None) -> str | None:
    if text and ("=" in text or "," in text):
        raise Unsupported(f"--network {text!r}: a network can't have options", hint="write its name only")
    return None if text in (None, "", "default") else text


def _security(options: tuple[str, ...]) -> tuple[str, bool, bool]:
    seccomp, no_new_privileges, unmasked = "default", False, False
    for option in options:
        key, separator, value = option.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges":
            no_new_privileges = value == "true" if separator else True
            if value not in ("", "true", "false"):
                raise Invalid(f"--security-opt {option!r}: write true or false")
        elif key == "seccomp" and value in ("unconfined", "default", "builtin"):
            seccomp = "unconfined" if value == "unconfined" else "default"
        elif (key, value) == ("systempaths", "unconfined"):
            unmasked = True
        elif (key, value) not in (("apparmor", "unconfined"), ("label", "disable")):
            raise Unsupported(
                f"--security-opt {option!r} is not supported by scow",
                hint="seccomp=unconfined, systempaths=unconfined and no-new-privileges are",
            )
    return seccomp, no_new_privileges, unmasked


def _restart(text: str) -> Restart:
    policy, colon, count = text.partition(":")
    if policy not in _POLICIES or (colon and (policy != "on-failure" or not count.isascii() or not count.isdigit())):
        raise Invalid(f"restart policy {text!r} is not one of no, on-failure[:n], always, unless-stopped")
    return Restart(policy, int(count) if colon else 0)


def _pair(text: str, flag: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise Invalid(f"{flag} {text!r} is not key=value")
    return key, value


def _host(text: str) -> tuple[str, str]:
    """`name:address` (the address may have colons) or `name=address`."""
    from ipaddress import ip_address

    name, _, address = text.partition("=") if "=" in text else text.partition(":")
    address = address.removeprefix("[").removesuffix("]")
    try:
        if address != "host-gateway":
            ip_address(address)
    except ValueError:
        raise Invalid(f"--add-host {text!r} is not name:address") from None
    if not name:
        raise Invalid(f"--add-host {text!r} has no name")
    return name, address


def _platform(text: str | None) -> Platform | None:
    return Platform.parse(text) if text else None


def _pull(text: str) -> Literal["missing", "always", "never"]:
    if text not in ("missing", "always", "never"):
        raise UsageError(f'invalid argument "{text}" for "--pull" flag: write always, missing or never')
    return cast('Literal["missing", "always", "never"]', text)
