"""Capabilities, users, limits, mount tables, records, environment: everything small and pure."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import (
    Exhausted,
    Internal,
    Invalid,
    NoCommand,
    NotExecutable,
    NotFound,
    PluginContext,
    Resources,
    ScowError,
    Unsupported,
)
from scow_plugins.namespaces import Plugin
from scow_plugins.namespaces._caps import DEFAULT, NAMES, capability_set, mask_of
from scow_plugins.namespaces._cgroups.devices import ALLOWED, program
from scow_plugins.namespaces._cgroups.files import counters
from scow_plugins.namespaces._cgroups.layout import parse_mountinfo
from scow_plugins.namespaces._cgroups.limits import Setting, check, settings
from scow_plugins.namespaces._cgroups.reclaim import reclaim
from scow_plugins.namespaces._command import environment
from scow_plugins.namespaces._errors import explain
from scow_plugins.namespaces._protocol import decode_failure, decode_pid, decode_stranger, encode_error
from scow_plugins.namespaces._users import look_up


def test_dockers_fourteen_have_dockers_mask() -> None:
    assert len(DEFAULT) == 14
    assert mask_of(DEFAULT) == 0xA80425FB
    assert (len(NAMES), NAMES[21], NAMES[-1]) == (41, "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE")


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), DEFAULT),
        (("net_admin", "CAP_SYS_TIME"), ("chown",), (DEFAULT - {"CAP_CHOWN"}) | {"CAP_NET_ADMIN", "CAP_SYS_TIME"}),
        (("ALL",), ("MKNOD",), frozenset(NAMES) - {"CAP_MKNOD"}),
        (("Kill",), ("all",), {"CAP_KILL"}),
        (("ALL",), ("ALL",), frozenset(NAMES)),
    ],
)
def test_capabilities_are_reckoned_as_docker_does(
    add: tuple[str, ...], drop: tuple[str, ...], expected: frozenset[str]
) -> None:
    assert capability_set(add, drop) == expected


def test_unknown_capabilities_are_named() -> None:
    with pytest.raises(Invalid, match=r"--cap-drop.*'FLY'"):
        capability_set((), ("FLY",))


_PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:www:/var/www:/bin/sh\n:x:1:1\nbad:x:nan:1:::\n"
    b"\xff\xfe:x:7:7::/h:\n5:x:50:50::/five:\n"
)
_GROUP = b"root:x:0:\nweb:x:33:\nlogs:x:4:web,root\nempty:x:9:\nbroken\n"


@pytest.mark.parametrize(
    ("user", "extra", "expected"),
    [
        ("", (), (0, 0, (0, 4), "/root")),
        ("web", (), (33, 33, (4, 33), "/var/www")),
        ("33", (), (33, 33, (4, 33), "/var/www")),
        ("web:logs", (), (33, 4, (4,), "/var/www")),
        ("web:", (), (33, 33, (4, 33), "/var/www")),
        ("1234", (), (1234, 0, (0,), "")),
        ("1234:5678", ("9", "logs"), (1234, 5678, (4, 9, 5678), "")),
        ("5", (), (50, 50, (50,), "/five")),
    ],
)
def test_users_are_looked_up_as_docker_does(user: str, extra: tuple[str, ...], expected: tuple[object, ...]) -> None:
    found = look_up(user, extra, _PASSWD, _GROUP)
    assert (found.uid, found.gid, found.groups, found.home) == expected


@pytest.mark.parametrize("user", ["nobody", "web:nogroup", "bad", "x:y", "-1", "+1", "１"])
def test_unknown_users_are_not_found(user: str) -> None:
    with pytest.raises(NotFound, match="no matching entries in"):
        look_up(user, (), _PASSWD, _GROUP)


@pytest.mark.parametrize("user", ["4294967295", "2147483648", "0:3000000000"])
def test_numbers_out_of_range_are_refused(user: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        look_up(user, (), _PASSWD, _GROUP)


@given(st.binary(), st.binary(), st.text(max_size=20))
def test_no_file_makes_the_look_up_fail_otherwise(passwd: bytes, group: bytes, user: str) -> None:
    try:
        found = look_up(user, (), passwd, group)
    except ScowError:
        return
    assert 0 <= found.uid < 2**32 - 1
    assert 0 <= found.gid < 2**32 - 1


_MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
34 31 0:31 /../.. /outside rw - cgroup cgroup rw,memory
35 31 0:32 / /sys/fs/cgroup/my\\040pids rw - cgroup cgroup rw,pids
36 31 0:32 / /elsewhere rw - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,nsdelegate - cgroup2 cgroup2 rw
"""


def test_hierarchies_are_read_from_mountinfo() -> None:
    found = [(h.path, h.version, set(h.controllers), h.label) for h in parse_mountinfo(_MOUNTINFO)]
    assert found == [
        ("/sys/fs/cgroup/cpu,cpuacct", 1, {"cpu", "cpuacct"}, "cpu,cpuacct"),
        ("/sys/fs/cgroup/systemd", 1, {"name=systemd"}, "systemd"),
        ("/sys/fs/cgroup/my pids", 1, {"pids"}, "my pids"),
        ("/sys/fs/cgroup/unified", 2, set(), "unified"),
    ]


def _written(resources: Resources, version: int) -> dict[str, str]:
    return {setting.file: setting.value for setting in settings(resources, version)}


def test_limits_are_written_for_both_versions() -> None:
    resources = Resources(memory=64 << 20, cpus=1.5, cpu_shares=1024, cpuset_cpus="0-1", pids=10)
    assert _written(resources, 1) == {
        "memory.limit_in_bytes": "67108864",
        "memory.memsw.limit_in_bytes": "134217728",
        "cpu.shares": "1024",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "cpuset.cpus": "0-1",
        "pids.max": "10",
    }
    assert _written(resources, 2) == {
        "memory.max": "67108864",
        "memory.swap.max": "67108864",
        "cpu.weight": "39",
        "cpu.max": "150000 100000",
        "cpuset.cpus": "0-1",
        "pids.max": "10",
    }
    assert settings(Resources(), 1) == settings(Resources(), 2) == ()
    assert settings(Resources(pids=-1), 2) == (Setting("pids", "pids.max", "max", "--pids-limit"),)
    assert _written(Resources(memory=64 << 20, memory_swap=-1), 2)["memory.swap.max"] == "max"
    assert _written(Resources(memory=64 << 20, memory_swap=64 << 20), 2)["memory.swap.max"] == "0"


@pytest.mark.parametrize(
    "resources",
    [
        Resources(memory=1),
        Resources(memory=8 << 20, memory_swap=7 << 20),
        Resources(memory_swap=8 << 20),
        Resources(cpus=0),
        Resources(cpu_shares=1),
    ],
)
def test_impossible_limits_are_refused(resources: Resources) -> None:
    with pytest.raises(Invalid):
        check(resources)


def test_counters_skip_what_is_none() -> None:
    assert counters("oom_kill_disable 0\nunder_oom 0\noom_kill 3\nodd\nname x\n") == {
        "oom_kill_disable": 0,
        "under_oom": 0,
        "oom_kill": 3,
    }


@pytest.mark.parametrize("path", ["", "/", "/scow", "/scow/", "/scow/..", "/scow/a/b", "/a//b", "/a/../b", "scow/x"])
def test_reclaim_touches_only_its_own(path: str) -> None:
    with pytest.raises(Invalid):
        reclaim(path)


def _device(code: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """Run an eBPF device program (only the instructions that ours has)."""
    context = struct.pack("<III", access << 16 | kind, major, minor)
    instructions = list(struct.iter_unpack("<BBhi", code))
    registers, at = [0] * 11, 0
    while True:
        op, regs, offset, k = instructions[at]
        target, source = regs & 15, regs >> 4
        at += 1
        match op:
            case 0x61:
                registers[target] = struct.unpack_from("<I", context, offset)[0]
            case 0xBC:
                registers[target] = registers[source]
            case 0xB4:
                registers[target] = k
            case 0x54:
                registers[target] &= k
            case 0x74:
                registers[target] >>= k
            case 0x55:
                at += offset if registers[target] != k else 0
            case 0x95:
                return registers[0]
            case _:
                raise AssertionError(hex(op))


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "expected"),
    [
        (2, 2, 1, 3, 1),
        (2, 6, 1, 9, 1),
        (2, 2, 1, 1, 0),
        (2, 1, 1, 1, 1),
        (2, 3, 1, 1, 0),
        (1, 1, 8, 0, 1),
        (1, 2, 8, 0, 0),
        (1, 2, 1, 3, 0),
        (2, 6, 136, 77, 1),
        (2, 6, 5, 2, 1),
        (2, 6, 5, 3, 0),
    ],
)
def test_device_program(kind: int, access: int, major: int, minor: int, expected: int) -> None:
    assert _device(program(), kind, access, major, minor) == expected


def test_device_rules_are_written_as_version_1_wants_them() -> None:
    assert [str(rule) for rule in ALLOWED[:3]] == ["c *:* m", "b *:* m", "c 1:3 rwm"]


def test_errors_cross_the_line_whole() -> None:
    for error in (NotFound("no x", hint="try y"), Invalid("broken"), Unsupported("zero \0 inside", hint=None)):
        back = decode_failure(encode_error(error), "cmd")
        assert type(back) is type(error)
        assert back.message == error.message.replace("\0", "?")
        assert back.hint == error.hint


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, NoCommand),
        (errno.EACCES, NotExecutable),
        (errno.ENOEXEC, NotExecutable),
        (errno.ENOMEM, Exhausted),
        (errno.E2BIG, NotExecutable),
    ],
)
def test_failed_execve_is_sorted_as_docker_does(code: int, kind: type[ScowError]) -> None:
    error = decode_failure(struct.pack("<q", -code), "/bin/it")
    assert type(error) is kind
    assert str(error).startswith("exec /bin/it: ")


@given(st.binary(min_size=1))
def test_any_record_is_some_error(record: bytes) -> None:
    assert isinstance(decode_failure(record, "cmd"), ScowError)


@given(st.one_of(st.binary(), st.integers(-5000, 1 << 23).map(lambda number: struct.pack("<q", number))))
def test_of_strangers_an_errno_is_all_that_is_taken(record: bytes) -> None:
    error = decode_stranger(record, "cmd")
    assert (error is not None) == (len(record) == 8 and -4095 <= struct.unpack("<q", record)[0] < 0)
    assert error is None or str(error).startswith("exec cmd: ")
    assert error is None or decode_pid(record) is None


@pytest.mark.parametrize(("number", "pid"), [(0x45, 0x45), (0x54, 0x54), (0, None), (-1, None), (1 << 40, None)])
def test_a_pid_is_told_from_everything_else(number: int, pid: int | None) -> None:
    assert decode_pid(struct.pack("<q", number)) == pid
    assert len(encode_error(Invalid(""))) > 8


def test_what_could_move_a_cursor_is_written_out() -> None:
    back = decode_failure(encode_error(NotFound("no \x1b[2J\n", hint="try \x9b1m")), "cmd")
    assert (back.message, back.hint) == ("no \\x1b[2J\\x0a", "try \\x9b1m")
    assert "\x1b" not in str(decode_failure(struct.pack("<q", -errno.ENOENT), "\x1b[31m"))


def test_errno_becomes_what_to_do() -> None:
    assert isinstance(explain(OSError(errno.ENOSPC, "full"), "x"), Exhausted)
    unknown = explain(OSError(errno.EXDEV, "odd"), "x")
    assert isinstance(unknown, Internal)
    assert unknown.hint is None


def test_environment_has_dockers_defaults() -> None:
    assert environment(("A=1", "junk", "=x", "A=2"), "", tty=True)[1:] == ("HOME=/", "TERM=xterm", "A=2")
    assert environment(("TERM=vt100", "PATH=/x", "HOME=/h"), "/y", tty=True) == ("PATH=/x", "HOME=/h", "TERM=vt100")


def test_claims_only_its_own_requests_and_probes_quietly(tmp_path: Path) -> None:
    plugin = Plugin(PluginContext("namespaces", tmp_path, tmp_path, {}))
    answer = plugin.probe()
    assert answer is None or answer.reason
