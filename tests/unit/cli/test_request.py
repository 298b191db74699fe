"""From the flags of `run` to the engine's request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scow.api import (
    BindMount,
    Invalid,
    NotFound,
    Platform,
    PortMapping,
    Restart,
    ScowError,
    TmpfsMount,
    Ulimit,
    Unsupported,
)
from scow.engine.types import CreateRequest
from scow_plugins.cli._flags import UsageError, parse
from scow_plugins.cli._request import create_request
from scow_plugins.cli.commands.run import COMMAND


def request(*words: str, environ: dict[str, str] | None = None) -> CreateRequest:
    return create_request(parse(COMMAND, [*words]), environ or {})


def test_missing_sources_of_v_are_made_once_all_is_right(tmp_path: Path) -> None:
    source = tmp_path / "new" / "x"
    with pytest.raises(ScowError):
        request("-v", f"{source}:/x", "--tmpfs", "relative", "nginx")
    with pytest.raises(NotFound):
        request("--mount", f"type=bind,src={source},dst=/x", "nginx")
    assert not source.parent.exists()
    assert request("-v", f"{source}:/x", "nginx").mounts == (BindMount(str(source), "/x"),)
    assert source.is_dir()


def test_nothing_but_an_image_is_nothing_but_an_image() -> None:
    assert request("nginx") == CreateRequest(image="nginx")


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        ("nginx -x --rm", "args", ("-x", "--rm")),
        ("--name web nginx", "name", "web"),
        ("--entrypoint sh nginx", "entrypoint", ("sh",)),
        ("--entrypoint= nginx", "entrypoint", ()),
        ("-w /x nginx", "workdir", "/x"),
        ("-u 1:2 nginx", "user", "1:2"),
        ("--group-add a --group-add b nginx", "groups", ("a", "b")),
        ("-it nginx", "tty", True),
        ("-i nginx", "stdin_open", True),
        ("-h box nginx", "hostname", "box"),
        ("--domainname d nginx", "domainname", "d"),
        ("--storage native nginx", "storage", "native"),
        ("--net none nginx", "network", "none"),
        ("--network default nginx", "network", None),
        ("--runtime r nginx", "runtime", "r"),
        ("-p 8080:80 -p 53:53/udp nginx", "ports", (PortMapping(80, 8080), PortMapping(53, 53, "udp"))),
        ("-p8000-8001:80-81 nginx", "ports", (PortMapping(80, 8000), PortMapping(81, 8001))),
        ("-P nginx", "publish_all", True),
        ("--expose 80 --expose 90-91/udp nginx", "expose", ("80/tcp", "90/udp", "91/udp")),
        ("--tmpfs /t:size=1m,mode=700,ro nginx", "mounts", (TmpfsMount("/t", 1 << 20, 0o700, True),)),
        ("--mount type=tmpfs,dst=/t,tmpfs-size=1k nginx", "mounts", (TmpfsMount("/t", 1024),)),
        ("--privileged nginx", "privileged", True),
        ("--cap-add SYS_ADMIN --cap-drop all nginx", "cap_add", ("SYS_ADMIN",)),
        ("--cap-drop all nginx", "cap_drop", ("all",)),
        ("--read-only nginx", "read_only", True),
        ("--tmpfs /t:rw,noexec,nosuid,size=65536k nginx", "mounts", (TmpfsMount("/t", 64 << 20),)),
        (
            "--tmpfs /t:exec,suid,noexec,size=50%,uid=7,nr_inodes=1k,noatime,defaults nginx",
            "mounts",
            (
                TmpfsMount(
                    "/t", options=(("size", "50%"), ("uid", "7"), ("nr_inodes", "1k")), flags=("suid", "noatime")
                ),
            ),
        ),
        ("--tmpfs /t:size=50%,size=1m nginx", "mounts", (TmpfsMount("/t", 1 << 20),)),
        ("-v /tmp:/x:z,ro,cached nginx", "mounts", (BindMount("/tmp", "/x", True),)),
        ("--mount type=bind,src=/tmp,dst=/x,consistency=delegated nginx", "mounts", (BindMount("/tmp", "/x"),)),
        ("--security-opt systempaths=unconfined nginx", "unmasked", True),
        ("--security-opt seccomp=unconfined nginx", "seccomp", "unconfined"),
        ("--security-opt no-new-privileges nginx", "no_new_privileges", True),
        ("--security-opt no-new-privileges:false nginx", "no_new_privileges", False),
        ("--sysctl a=b=c nginx", "sysctls", (("a", "b=c"),)),
        ("--init nginx", "init", True),
        ("-l a=1 -l b -l a=2 nginx", "labels", (("a", "2"), ("b", ""))),
        ("--rm nginx", "auto_remove", True),
        ("--stop-signal INT nginx", "stop_signal", "INT"),
        ("--stop-timeout 3 nginx", "stop_timeout", 3.0),
        ("--restart on-failure:3 nginx", "restart", Restart("on-failure", 3)),
        ("--restart always nginx", "restart", Restart("always")),
        ("--dns 1.1.1.1 nginx", "nameservers", ("1.1.1.1",)),
        ("--dns-search a --dns-option b nginx", "search", ("a",)),
        ("--dns-opt b nginx", "dns_options", ("b",)),
        ("--add-host a:1.2.3.4 nginx", "extra_hosts", (("a", "1.2.3.4"),)),
        ("--add-host a:::1 nginx", "extra_hosts", (("a", "::1"),)),
        ("--add-host a=[::1] nginx", "extra_hosts", (("a", "::1"),)),
        ("--add-host a:host-gateway nginx", "extra_hosts", (("a", "host-gateway"),)),
        ("--platform linux/arm64 nginx", "platform", Platform("linux", "arm64")),
        ("--pull never nginx", "pull", "never"),
    ],
)
def test_fields(words: str, field: str, value: Any) -> None:
    assert getattr(request(*words.split(" ")), field) == value


def test_limits() -> None:
    words = "-m 64m --memory-swap -1 --cpus 1.5 -c 512 --cpuset-cpus 0,1 --pids-limit 20 --shm-size 1g nginx"
    limits = request(*words.split(" ")).resources
    assert (limits.memory, limits.memory_swap, limits.cpus, limits.cpu_shares) == (64 << 20, -1, 1.5, 512)
    assert (limits.cpuset_cpus, limits.pids, limits.shm_size) == ("0,1", 20, 1 << 30)


def test_limits_of_processes() -> None:
    words = "--ulimit nofile=10 --ulimit core=1:-1 --ulimit nofile=20:30 --ulimit cpu=-1 --cgroup-parent a/b nginx"
    limits = request(*words.split(" ")).resources
    assert limits.ulimits == (Ulimit("nofile", 20, 30), Ulimit("core", 1, -1), Ulimit("cpu", -1, -1))
    assert limits.cgroup_parent == "a/b"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nofile", "invalid ulimit argument: nofile"),
        ("as=1", "invalid ulimit type: as"),
        ("=1", "invalid ulimit type: "),
        ("nofile=1:2:3", "too many limit value arguments - 1:2:3, can only have up to two, `soft[:hard]`"),
        ("nofile=2:1", "ulimit soft limit must be less than or equal to hard limit: 2 > 1"),
        ("nofile=-1:1", "soft: -1 (unlimited), hard: 1"),
        ("nofile=x", "'x': not a number"),
        ("nofile=", "'': not a number"),
        ("nofile=1:", "'': not a number"),
        ("nofile=-2", "-1 for unlimited"),
    ],
)
def test_wrong_limits_of_processes(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        request("--ulimit", text, "nginx")
    assert f'invalid argument "{text}" for "--ulimit" flag: ' in caught.value.message
    assert says in caught.value.message


def test_zero_and_minus_one_are_no_limits() -> None:
    assert request(*["-m", "0", "--cpus", "0", "--pids-limit", "-1", "-c", "0", "nginx"]) == request("nginx")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("--restart always --rm nginx", Invalid, "exclude"),
        ("--restart sometimes nginx", Invalid, "sometimes"),
        ("--restart always:3 nginx", Invalid, "always:3"),
        ("--network a=b nginx", Unsupported, "a=b"),
        ("--security-opt seccomp=/p nginx", Unsupported, "seccomp=/p"),
        ("--security-opt apparmor=x nginx", Unsupported, "apparmor=x"),
        ("--security-opt no-new-privileges:x nginx", Invalid, "true or false"),
        ("--sysctl a nginx", Invalid, "key=value"),
        ("--add-host a nginx", Invalid, "name:address"),
        ("--add-host :1.1.1.1 nginx", Invalid, "no name"),
        ("--expose 1:2 nginx", Invalid, "colon"),
        ("-p foo:bar nginx", Invalid, "foo:bar"),
        ("-e =x nginx", Invalid, "no name"),
        ("-l =x nginx", Invalid, "no name"),
        ("--platform a/b/c/d nginx", Invalid, "platform"),
        ("--env-file /nowhere nginx", NotFound, "/nowhere"),
        ("-v name:/x nginx", Unsupported, "named volumes"),
        ("-v /x nginx", Unsupported, "anonymous"),
        ("--mount type=bind,src=/nowhere,dst=/x nginx", NotFound, "/nowhere doesn't exist"),
        ("-v /tmp:x nginx", Invalid, "absolute"),
        ("-v /tmp:/ nginx", Invalid, "root of the container"),
        ("-v /tmp:/x/.. nginx", Invalid, "root of the container"),
        ("-v /tmp:/x:foo nginx", Invalid, "foo"),
        ("--mount type=bind,src=/tmp,dst=/x,consistency=strong nginx", Invalid, "consistency"),
        ("-v /proc/version/x:/x nginx", NotFound, "can't be made"),
        ("-v /tmp:/x:ro:rw nginx", Invalid, "source:target"),
        ("-v :/x nginx", Invalid, "source:target"),
        ("-v a/b:/x nginx", Invalid, "not a path"),
        ("-v /tmp:/x -v /tmp:/x/ nginx", Invalid, "same target"),
        ("--mount target=/x nginx", Unsupported, "volume"),
        ("--mount type=odd,target=/x nginx", Invalid, "odd"),
        ("--mount type=bind,target=/x nginx", Invalid, "no source"),
        ("--mount type=bind,source=/tmp nginx", Invalid, "no target"),
        ("--mount type=bind,source=/tmp,target=/x,foo=1 nginx", Invalid, "foo"),
        ("--mount type=bind,source=/tmp,target=/x,ro=maybe nginx", Invalid, "ro"),
        ("--mount type=bind,source=/tmp,target=/x,bind-propagation=odd nginx", Invalid, "odd"),
        ("--mount type=bind,source=/tmp,target=/x,bind-recursive=readonly nginx", Unsupported, "bind-recursive"),
        ("--mount type=tmpfs,target=/x,source=/tmp nginx", Invalid, "source"),
        ("--mount type=tmpfs,target=/x,tmpfs-mode=9 nginx", Invalid, "octal"),
        ('--mount "type=bind nginx', Invalid, "key=value"),
        ("--tmpfs /x:bind nginx", Unsupported, "bind"),
        ("--tmpfs /x:uid=me nginx", Invalid, "uid can't be 'me'"),
        ("--tmpfs /x:nr_inodes=-1 nginx", Invalid, "nr_inodes"),
        ("--security-opt systempaths=x nginx", Unsupported, "systempaths=x"),
        ("--tmpfs /x:size=big nginx", Invalid, "big"),
        ("--tmpfs x nginx", Invalid, "absolute"),
    ],
)
def test_errors(words: str, error: type[ScowError], message: str) -> None:
    with pytest.raises(error) as caught:
        request(*words.split(" "))
    assert message in caught.value.message


def test_a_wrong_pull_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--pull"):
        request("--pull", "sometimes", "nginx")


def test_environment(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("\ufeffA=1\n\n  # comment\n  B\nC\nD=x y \n")
    got = request("--env-file", str(file), "-e", "A=2", "-e", "B", "-e", "Z", "nginx", environ={"B": "b"})
    assert got.env == ("A=1", "B=b", "D=x y ", "A=2", "B=b", "Z")


def test_environment_files_with_bad_names(tmp_path: Path) -> None:
    file = tmp_path / "env"
    for content in (b"A B=1", b"=1", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(Invalid, match="env"):
            request("--env-file", str(file), "nginx")


def test_label_files(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    file.write_text("a=1\n#b\nc\n")
    assert request("--label-file", str(file), "-l", "a=2", "nginx").labels == (("a", "2"), ("c", ""))


def test_relative_mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    got = request("-v", "./a b:/x/../y:ro,rslave", "-v", ".:/z", "nginx").mounts
    assert got == (BindMount(f"{tmp_path}/a b", "/y", True, "rslave"), BindMount(str(tmp_path), "/z"))


def test_long_mounts(tmp_path: Path) -> None:
    source = tmp_path / "a,b"
    source.mkdir()
    text = f'type=bind,"src={source}",destination=/x,readonly,bind-propagation=slave,bind-nonrecursive'
    assert request("--mount", text, "nginx").mounts == (BindMount(str(source), "/x", True, "slave", recursive=False),)
    text = f'type=bind,"src={source}",dst=/x,ro=false,bind-recursive=disabled'
    assert request("--mount", text, "nginx").mounts == (BindMount(str(source), "/x", recursive=False),)
