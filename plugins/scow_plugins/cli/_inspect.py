"""Containers and images in the shape of docker's `inspect`: what scow knows, under docker's names. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scow.api import BindMount, Container, Healthcheck, Mount, PortMapping, Status, TmpfsMount
from scow.engine import ImageInfo
from scow_plugins.cli._evaluate import FreeMap
from scow_plugins.cli._names import familiar
from scow_plugins.cli._units import stamp


def container_json(container: Container) -> dict[str, Any]:
    """`scow inspect CONTAINER`."""
    spec, state = container.spec, container.state
    return {
        "Id": spec.id,
        "Created": stamp(spec.created),
        "Path": spec.process.args[0] if spec.process.args else "",
        "Args": list(spec.process.args[1:]),
        "State": _state(container),
        "Image": spec.image_id,
        "Name": f"/{spec.name}",
        "RestartCount": state.restarts,
        "Driver": spec.storage,
        "Platform": "linux",
        "ImageManifestDigest": spec.manifest,
        "HostConfig": _host_config(container),
        "Mounts": [_mount(mount) for mount in spec.isolation.mounts],
        "Config": _config(container),
        "NetworkSettings": _network(container),
    }


def _state(container: Container) -> dict[str, Any]:
    state = container.state
    return {
        "Status": state.status.value,
        "Running": state.status in (Status.RUNNING, Status.PAUSED),
        "Paused": state.status is Status.PAUSED,
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": stamp(state.started),
        "FinishedAt": stamp(state.finished),
    }


def _host_config(container: Container) -> dict[str, Any]:
    spec, isolation = container.spec, container.spec.isolation
    limits = isolation.resources
    security = [f"seccomp={isolation.seccomp}"] if isolation.seccomp != "default" else []
    security += ["no-new-privileges"] if isolation.no_new_privileges else []
    security += ["systempaths=unconfined"] if isolation.unmasked else []
    return {
        "Binds": [_bind(mount) for mount in isolation.mounts if isinstance(mount, BindMount)] or None,
        "NetworkMode": spec.network,
        "PortBindings": FreeMap(_bindings(spec.ports)),
        "RestartPolicy": {"Name": spec.restart.policy, "MaximumRetryCount": spec.restart.maximum},
        "AutoRemove": spec.auto_remove,
        "CapAdd": list(isolation.cap_add) or None,
        "CapDrop": list(isolation.cap_drop) or None,
        "Dns": list(spec.nameservers),
        "DnsOptions": list(spec.dns_options),
        "DnsSearch": list(spec.search),
        "ExtraHosts": [f"{name}:{address}" for name, address in spec.extra_hosts] or None,
        "GroupAdd": list(spec.process.groups) or None,
        "Privileged": isolation.privileged,
        "ReadonlyRootfs": isolation.read_only,
        "SecurityOpt": security or None,
        "Tmpfs": FreeMap({m.target: _tmpfs(m) for m in isolation.mounts if isinstance(m, TmpfsMount)}),
        "ShmSize": limits.shm_size,
        "Sysctls": FreeMap(isolation.sysctls),
        "Runtime": spec.runtime,
        "CpuShares": limits.cpu_shares or 0,
        "Memory": limits.memory or 0,
        "NanoCpus": round((limits.cpus or 0) * 1e9),
        "CpusetCpus": limits.cpuset_cpus,
        "MemorySwap": limits.memory_swap or 0,
        "PidsLimit": limits.pids,
        "Ulimits": [{"Name": each.name, "Hard": each.hard, "Soft": each.soft} for each in limits.ulimits] or None,
        "CgroupParent": limits.cgroup_parent,
        "Init": isolation.init,
    }


def _bind(mount: BindMount) -> str:
    options = (["ro"] if mount.read_only else []) + ([mount.propagation] if mount.propagation != "rprivate" else [])
    return f"{mount.source}:{mount.target}" + (":" + ",".join(options) if options else "")


def _tmpfs(mount: TmpfsMount) -> str:
    size = [f"size={mount.size}"] if mount.size is not None else []
    own = [f"{name}={value}" for name, value in mount.options]
    return ",".join([*(["ro"] if mount.read_only else []), *size, f"mode={mount.mode:o}", *own, *mount.flags])


def _mount(mount: Mount) -> dict[str, Any]:
    bind = isinstance(mount, BindMount)
    return {
        "Type": "bind" if bind else "tmpfs",
        "Source": mount.source if isinstance(mount, BindMount) else "",
        "Destination": mount.target,
        "Mode": "ro" if mount.read_only else "",
        "RW": not mount.read_only,
        "Propagation": mount.propagation if isinstance(mount, BindMount) else "",
    }


def _config(container: Container) -> dict[str, Any]:
    spec, process = container.spec, container.spec.process
    return {
        "Hostname": spec.isolation.hostname,
        "Domainname": spec.isolation.domainname,
        "User": process.user,
        "ExposedPorts": FreeMap({port: {} for port in spec.exposed_ports}),
        "Tty": process.tty,
        "OpenStdin": spec.stdin_open,
        "StdinOnce": spec.stdin_once,
        "Env": list(spec.env),
        "Cmd": list(spec.cmd) or None,
        "Image": spec.image,
        "WorkingDir": process.cwd,
        "Entrypoint": list(spec.entrypoint) or None,
        "Labels": FreeMap(spec.labels),
        "StopSignal": spec.stop_signal,
        "StopTimeout": int(spec.stop_timeout),
    }


def _bindings(ports: Iterable[PortMapping]) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in ports:
        entry = {"HostIp": port.host_ip, "HostPort": port.host if port.host_port else ""}
        bindings.setdefault(f"{port.container_port}/{port.protocol}", []).append(entry)
    return bindings


def _network(container: Container) -> dict[str, Any]:
    spec, state = container.spec, container.state
    published: dict[str, Any] = dict.fromkeys(spec.exposed) | _bindings(state.ports)
    first = next((text for text in state.addresses if ":" not in text), "")
    address, _, prefix = first.partition("/")
    third = next((text for text in state.addresses if ":" in text), "")
    address6, _, prefix6 = third.partition("/")
    endpoint = {
        "MacAddress": state.mac,
        "Gateway": state.gateway,
        "IPAddress": address,
        "IPPrefixLen": int(prefix or 0),
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(prefix6 or 0),
    }
    return {"Ports": FreeMap(published), **endpoint, "Networks": FreeMap({spec.network: dict(endpoint)})}


def image_json(image: ImageInfo) -> dict[str, Any]:
    """`scow inspect IMAGE`."""
    config, digests = image.config, [familiar(name) for name in image.repo_digests]
    return {
        "Id": str(image.id),
        # An image that was pulled by digest has that for a name, but no tag.
        "RepoTags": [name for name in map(familiar, image.names) if name not in digests],
        "RepoDigests": digests,
        "Parent": "",
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created or stamp(image.created),
        "Author": config.author,
        "Config": _image_config(image),
        "Architecture": config.platform.architecture,
        "Variant": config.platform.variant,
        "Os": config.platform.os,
        "Size": image.size,
        "RootFS": {"Type": "layers", "Layers": [str(digest) for digest in config.diff_ids]},
        "Metadata": {"LastTagTime": stamp(image.pulled)},
        "Descriptor": {"mediaType": image.manifest.media_type, "digest": str(image.manifest_digest)},
    }


def _image_config(image: ImageInfo) -> dict[str, Any]:
    config = image.config
    return {
        "User": config.user,
        "ExposedPorts": FreeMap({port: {} for port in config.exposed_ports}),
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint) or None,
        "Cmd": list(config.cmd) or None,
        "Volumes": FreeMap({path: {} for path in config.volumes}),
        "WorkingDir": config.working_dir,
        "Labels": FreeMap(config.labels),
        "OnBuild": list(config.on_build) or None,
        "StopSignal": config.stop_signal,
        "Shell": list(config.shell) or None,
        **({"Healthcheck": _health(config.healthcheck)} if config.healthcheck is not None else {}),
    }


def _health(check: Healthcheck) -> dict[str, Any]:
    """Durations in nanoseconds; what isn't said is left out."""
    times = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {"Test": list(check.test), **{name: value for name, value in times.items() if value}}
