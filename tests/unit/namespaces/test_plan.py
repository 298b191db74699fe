"""Plans from requests, and how they are performed, without touching the machine."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from scow.api import (
    BindMount,
    Endpoint,
    ExecRequest,
    Invalid,
    Isolation,
    NotFound,
    ProcessSpec,
    Resources,
    Rootfs,
    ScowError,
    TmpfsMount,
    Unsupported,
)
from scow.api.linux import AttrFlag, MountFlag
from scow_plugins.namespaces._ops import (
    Bind,
    Copied,
    Device,
    Directory,
    Filesystem,
    Mask,
    Op,
    ReadOnly,
    Seal,
    Symlink,
    WriteFile,
)
from scow_plugins.namespaces._perform import Port, open_sources, perform
from scow_plugins.namespaces._plan import HostDevice, HostFacts, plan

_HYBRID = HostFacts((("cpu,cpuacct", "/cg/cpu/scow/c"), ("unified", "/cg/unified/scow/c")))


class _Journal:
    def hold(self, **handle: str | int) -> int:
        return 1

    def release(self, entry: int) -> None:
        return None


def _request(isolation: Isolation, etc: tuple[tuple[str, str], ...] = (), netns: int | None = 5) -> ExecRequest:
    return ExecRequest(
        "namespaces",
        "c",
        ProcessSpec(("true",), cwd="/work"),
        isolation,
        Rootfs("x", 3),
        Endpoint("bridge", netns),
        None,
        _Journal(),
        "/run/c",
        etc,
    )


def _plan(host: HostFacts = _HYBRID, **isolation: Any) -> tuple[Op, ...]:
    return plan(_request(Isolation("x", **isolation)), host)


def _targets(ops: Iterable[Op], kind: type[Op]) -> list[str]:
    return [op.target for op in ops if isinstance(op, kind)]


def test_an_ordinary_container() -> None:
    ops = _plan()
    assert _targets(ops, Filesystem) == [
        "/proc",
        "/sys",
        "/sys/fs/cgroup",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
    ]
    assert _targets(ops, Device) == [f"/dev/{n}" for n in ("null", "zero", "full", "random", "urandom", "tty")]
    sysfs = next(op for op in ops if isinstance(op, Filesystem) and op.target == "/sys")
    assert sysfs.attributes & AttrFlag.RDONLY
    assert Bind("/cg/cpu/scow/c", "/sys/fs/cgroup/cpu,cpuacct", True, False, MountFlag.PRIVATE, True) in ops
    assert Symlink("/sys/fs/cgroup/cpuacct", "cpu,cpuacct") in ops
    assert Mask("/proc/kcore") in ops
    assert ReadOnly("/proc/sys") in ops
    assert _targets(ops, Seal) == ["/sys/fs/cgroup"]
    assert Directory("/work") in ops


def test_nothing_is_hidden_before_it_is_there() -> None:
    ops = _plan(mounts=(TmpfsMount("/data"),), sysctls=(("net.core.somaxconn", "5"),), read_only=True)
    order = [type(op) for op in ops]
    assert order.index(WriteFile) < order.index(Mask) < order.index(ReadOnly)
    assert ops[-1] == Seal("/")
    assert order.index(Mask) > max(i for i, op in enumerate(ops) if isinstance(op, Filesystem))


def test_version_2_alone_is_the_whole_of_sys_fs_cgroup() -> None:
    ops = _plan(HostFacts((("", "/sys/fs/cgroup/scow/c"),)))
    assert [op for op in ops if isinstance(op, Bind)] == [
        Bind("/sys/fs/cgroup/scow/c", "/sys/fs/cgroup", True, False, MountFlag.PRIVATE, True)
    ]


def test_privileged_sees_everything() -> None:
    host = HostFacts(_HYBRID.cgroups, (HostDevice("/dev/sda", 0o60660, 8, 0), HostDevice("/dev/null", 0o20666, 1, 3)))
    ops = _plan(host, privileged=True)
    assert Device("/dev/sda", 0o60660, 8, 0) in ops
    assert _targets(ops, Device).count("/dev/null") == 1
    assert not any(isinstance(op, Mask | ReadOnly | Seal) for op in ops)
    assert not any(isinstance(op, Filesystem) and op.attributes & AttrFlag.RDONLY for op in ops)


def test_mounts_are_sorted_by_depth_and_replace_defaults() -> None:
    mounts = (
        BindMount("/h/b", "/a/b/c"),
        TmpfsMount("/a"),
        BindMount("/h/shm", "/dev/shm"),
        TmpfsMount("/a/b/", size=7),
    )
    ops = plan(_request(Isolation("x", mounts=mounts), etc=(("/h/hosts", "/etc/hosts"),)), _HYBRID)
    user = [
        op.target for op in ops if isinstance(op, Filesystem | Bind | Copied) and op.target.startswith(("/a", "/etc"))
    ]
    assert user.index("/a") < user.index("/a/b") < user.index("/a/b/c")
    assert "/etc/hosts" in user
    assert [type(op) for op in ops if isinstance(op, Filesystem | Bind) and op.target == "/dev/shm"] == [Bind]
    own = Isolation("x", mounts=(BindMount("/mine", "/etc/hosts"), BindMount("/dev", "/dev")))
    ops = plan(_request(own, etc=(("/h/hosts", "/etc/hosts"),)), _HYBRID)
    assert [op.source for op in ops if isinstance(op, Bind) and op.target == "/etc/hosts"] == ["/mine"]
    assert not _targets(ops, Device)


def test_files_of_the_engine_are_copies_and_follow_the_root() -> None:
    for read_only in (False, True):
        ops = plan(_request(Isolation("x", read_only=read_only), etc=(("/h/hosts", "/etc/hosts"),)), _HYBRID)
        assert Copied("/h/hosts", "/etc/hosts", read_only) in ops


def test_nothing_is_hidden_where_that_was_asked_for() -> None:
    ops = _plan(unmasked=True)
    assert not any(isinstance(op, Mask | ReadOnly) for op in ops)
    assert _targets(ops, Seal) == ["/sys/fs/cgroup"]


def test_options_of_memory_file_systems() -> None:
    quiet = AttrFlag.NOSUID | AttrFlag.NODEV | AttrFlag.NOEXEC
    for flags, attributes in (
        ((), quiet),
        (("exec", "dev"), AttrFlag.NOSUID),
        (("noatime",), quiet | AttrFlag.NOATIME),
        (("noatime", "strictatime"), quiet | AttrFlag.STRICTATIME),
    ):
        mount = TmpfsMount("/t", 7, options=(("uid", "5"),), flags=flags)
        options = (("source", "tmpfs"), ("mode", "1777"), ("size", "7"), ("uid", "5"))
        assert Filesystem("tmpfs", "/t", options, attributes) in _plan(mounts=(mount,))
    with pytest.raises(Invalid):
        _plan(mounts=(TmpfsMount("/t", flags=("loud",)),))


def test_shm_size_and_propagation_arrive() -> None:
    ops = _plan(
        resources=Resources(shm_size=4096), mounts=(BindMount("/h", "/t", propagation="rslave", recursive=False),)
    )
    assert ("size", "4096") in next(op for op in ops if isinstance(op, Filesystem) and op.target == "/dev/shm").options
    assert Bind("/h", "/t", False, False, MountFlag.SLAVE) in ops


@pytest.mark.parametrize("target", ["/", "//", "/.", "rel", "/proc", "/proc/1", "/x/../proc/sys", "", "/a\0b"])
def test_impossible_targets_are_refused(target: str) -> None:
    with pytest.raises(Invalid):
        _plan(mounts=(TmpfsMount(target),))


def test_what_can_not_be_is_said() -> None:
    with pytest.raises(Unsupported):
        _plan(mounts=(BindMount("/h", "/t", propagation="rshared"),))
    with pytest.raises(Invalid):
        _plan(mounts=(BindMount("/h", "/t", propagation="loud"),))


@pytest.mark.parametrize("name", ["kernel.panic", "vm.swappiness", "net/../kernel.x", "kernel.msgmax/../panic"])
def test_sysctls_of_the_whole_machine_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        _plan(sysctls=((name, "1"),))


def test_sysctls_of_the_network_need_a_network_of_ones_own() -> None:
    isolation = Isolation("x", sysctls=(("net.ipv4.ip_forward", "1"),))
    assert WriteFile("/proc/sys/net/ipv4/ip_forward", "1") in plan(_request(isolation), _HYBRID)
    with pytest.raises(Invalid):
        plan(_request(isolation, netns=None), _HYBRID)


class Recording:
    """A port that only writes down what it is asked; `there` are paths inside, True for a directory."""

    def __init__(self, there: dict[str, bool] | None = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.there = there or {}
        self.count = 100

    def _call(self, *call: Any) -> int:
        self.calls.append(call)
        self.count += 1
        return self.count

    def new(self, fstype: str, options: Iterable[tuple[str, str | None]], attributes: int) -> int:
        return self._call("new", fstype)

    def source(self, path: str, recursive: bool) -> int:
        return self._call("source", path, recursive)

    def copies(self, paths: Sequence[str]) -> list[int]:
        return [self._call("copies", path) for path in paths]

    def again(self, path: str) -> int | None:
        return self._call("again", path) if path in self.there else None

    def kind(self, path: str) -> bool | None:
        return self.there.get(path)

    def is_directory(self, mount: int) -> bool:
        return True

    def change(self, mount: int, attributes: int, propagation: int, recursive: bool) -> None:
        self._call("change", mount, attributes, propagation, recursive)

    def seal(self, target: str) -> None:
        self._call("seal", target)

    def attach(self, mount: int, target: str, directory: bool, strict: bool) -> None:
        self._call("attach", mount, target, directory, strict)

    def node(self, target: str, mode: int, device: int) -> None:
        self._call("node", target, device)

    def link(self, target: str, to: str) -> None:
        self._call("link", target, to)

    def directory(self, target: str) -> None:
        self._call("directory", target)

    def write(self, target: str, content: str) -> None:
        self._call("write", target, content)


class Failing(Recording):
    """Fails at its n-th call."""

    def __init__(self, at: int, code: int) -> None:
        super().__init__({"/proc/kcore": False, "/dev/null": False, "/proc/sys": True, "/sys/firmware": True})
        self.at, self.code = at, code

    def _call(self, *call: Any) -> int:
        if len(self.calls) == self.at:
            raise OSError(self.code, os.strerror(self.code))
        return super()._call(*call)


def test_performing_asks_for_what_the_plan_says() -> None:
    port: Port
    recording = port = Recording({"/proc/kcore": False, "/dev/null": False, "/proc/sys": True})
    ops = _plan(HostFacts(), mounts=(BindMount("/h", "/t", read_only=True),), read_only=True)
    perform(ops, open_sources(ops, port), port)
    calls = recording.calls
    assert calls[:3] == [("source", "/h", True), ("new", "proc"), ("attach", 102, "/proc", True, True)]
    assert ("change", 101, AttrFlag.RDONLY, MountFlag.PRIVATE, True) in calls
    assert ("attach", 101, "/t", True, False) in calls
    assert ("node", "/dev/null", os.makedev(1, 3)) in calls
    hidden = calls.index(("again", "/dev/null"))
    assert calls[hidden + 1][2:] == ("/proc/kcore", False, False)
    assert calls[-1] == ("seal", "/")


def test_every_failure_is_a_classified_error() -> None:
    ops = _plan(mounts=(BindMount("/h", "/t"), TmpfsMount("/s")), sysctls=(("kernel.msgmax", "1"),), read_only=True)
    for code in (errno.EIO, errno.ENOSPC, errno.EPERM, errno.ENOTDIR, errno.ENOENT, errno.ELOOP):
        for at in range(200):
            port = Failing(at, code)
            try:
                perform(ops, open_sources(ops, port), port)
            except ScowError:
                continue
            else:
                assert len(port.calls) <= at
                break
        else:
            raise AssertionError("never got through")


def test_a_missing_source_is_not_found() -> None:
    with pytest.raises(NotFound, match="bind source path does not exist: /h"):
        open_sources(_plan(HostFacts(), mounts=(BindMount("/h", "/t"),)), Failing(0, errno.ENOENT))
