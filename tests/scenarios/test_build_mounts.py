"""What a step may use beside its files: an SSH agent, caches that begin with something, rights beyond a container's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Scow, require
from .test_build import build, context, launcher

__all__ = ["context", "launcher"]


def needed(program: str) -> list[Path]:
    """A program with what it loads."""
    path = Path(str(shutil.which(program)))
    said = subprocess.run(["ldd", path], capture_output=True, check=True).stdout.decode()
    return [path, *(Path(word) for word in said.split() if word.startswith("/"))]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """A real agent with one key."""
    require("ssh-agent", "ssh-add", "ssh-keygen")
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline()  # said once it listens
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the key", "-f", tmp_path / "key"], check=True
        )
        env = {**os.environ, "SSH_AUTH_SOCK": str(place)}
        subprocess.run(["ssh-add", "-q", tmp_path / "key"], check=True, env=env, capture_output=True)
        yield place
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_an_agent_is_lent_to_a_step(pulled: Scow, context: Path, agent: Path) -> None:
    tools = context / "tools"
    for name in ("ssh-add", "ssh-keygen"):
        for path in needed(name):
            target = tools / str(path).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    pulled.env["SSH_AUTH_SOCK"] = str(agent)
    text = """FROM busybox
COPY tools /
ENV PATH=/bin:/usr/bin
RUN --mount=type=ssh,required ssh-add -l > /listed && echo $SSH_AUTH_SOCK >> /listed
RUN --mount=type=ssh ! ssh-add -D && ! ssh-add -x < /dev/null; ssh-add -l | wc -l >> /listed
RUN --mount=type=ssh,id=default,target=/there,mode=0666,uid=5,gid=6 stat -c '%a %u %g' /there >> /listed
RUN --mount=type=ssh --mount=type=ssh,id=other ssh-add -L > /pub && echo data > /data && \
    ssh-keygen -q -Y sign -n file -f /pub /data && head -n 1 /data.sig >> /listed
RUN echo "none ${SSH_AUTH_SOCK-here}" >> /listed; ls /run/buildkit 2>&1 | wc -l >> /listed
CMD cat /listed
"""
    image = build(pulled, context, text, "-q", "--ssh", "default")
    lines = pulled("run", "--rm", image).splitlines()
    assert "the key (ED25519)" in lines[0]
    assert lines[1:] == [
        "/run/buildkit/ssh_agent.0", "1", "666 5 6", "-----BEGIN SSH SIGNATURE-----", "none here", "1"
    ]  # fmt: skip
    assert "the key" in subprocess.run(
        ["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": str(agent)}, capture_output=True, check=True
    ).stdout.decode()  # fmt: skip
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=ssh,required true\n")
    pulled.fails("build", str(context), code=1, says="Dockerfile:2: SSH agent default: not found")
    pulled.fails("build", "--ssh", f"default={context}", str(context), code=1, says="is not the socket of an SSH agent")
    pulled.env["SSH_AUTH_SOCK"] = ""
    pulled.fails("build", "--ssh", "default", str(context), code=1, says="there is no SSH agent")


def test_caches_begin_with_something(pulled: Scow, context: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("of the host")
    text = f"""FROM busybox AS seed
RUN mkdir -p /from/sub && echo seed > /from/sub/f && chmod 750 /from/sub && chown 5 /from/sub
FROM busybox
RUN --mount=type=cache,target=/c,from=seed,source=/from/sub cat /c/f > /said && stat -c '%a %u' /c >> /said && \
    echo more >> /c/f
RUN --mount=type=cache,target=/c,from=seed,source=/from/sub wc -l < /c/f >> /said
RUN --mount=type=cache,id=plain,target=/c mkdir /c/inner && echo in > /c/inner/f && ln -s {host} /c/out && \
    ln -s inner /c/link
RUN --mount=type=cache,id=plain,source=/link,target=/d cat /d/f >> /said
CMD cat /said
"""
    image = build(pulled, context, text, "-q")
    assert pulled("run", "--rm", image).split() == ["seed", "750", "5", "2", "in"]
    # The cache's own links lead nowhere but into it.
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=cache,id=plain,source=/out,target=/d cat /d/secret\n"
    )
    errors = pulled.fails("build", str(context), code=1, says="is not there")
    assert "of the host" not in errors
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=cache,from=busybox,source=/none,target=/d true\n"
    )
    pulled.fails("build", str(context), code=1, says="there is no such directory")


def test_many_begin_one_cache_at_once(pulled: Scow, context: Path) -> None:
    stages = "".join(
        f"FROM busybox AS s{number}\n"
        f"RUN --mount=type=cache,id=shared,target=/c touch /c/{number} && echo > /done{number}\n"
        for number in range(6)
    )
    copies = "".join(f"COPY --from=s{number} /done{number} /\n" for number in range(6))
    count = "RUN --mount=type=cache,id=shared,target=/c ls /c | wc -l > /count\nCMD cat /count\n"
    image = build(pulled, context, f"{stages}FROM busybox\n{copies}{count}", "-q")
    assert pulled("run", "--rm", image) == "6\n"


def test_more_rights_only_where_they_are_given(pulled: Scow, context: Path) -> None:
    text = "FROM busybox\nRUN --security=insecure mkdir /m && mount -t tmpfs none /m && echo done > /x\nCMD cat /x\n"
    (context / "Dockerfile").write_text(text)
    pulled.fails("build", str(context), code=2, says="Dockerfile:2: security.insecure is not allowed")
    pulled.fails("build", "--allow", "device", str(context), code=1, says="--allow device is not supported")
    image = build(pulled, context, text, "-q", "--allow", "security.insecure")
    assert pulled("run", "--rm", image) == "done\n"
    (context / "Dockerfile").write_text("FROM busybox\nRUN ! mount -t tmpfs none /tmp\n")
    pulled("build", "-q", "--allow", "security.insecure,network.host", str(context))


def test_limits_of_steps(pulled: Scow, context: Path) -> None:
    above = f"/scow-build-{os.getpid()}"
    text = "FROM busybox\nRUN echo $(ulimit -n) $(ulimit -Hn) > /limits\nCMD cat /limits; ulimit -n\n"
    image = build(pulled, context, text, "-q", "--ulimit", "nofile=60:70", "--cgroup-parent", above)
    assert pulled("run", "--rm", "--ulimit", "nofile=80", image).split() == ["60", "70", "80"]
    assert not list(Path("/sys/fs/cgroup").glob(f"**{above}"))
    # With other limits it is another step.
    image = build(pulled, context, text, "-q", "--ulimit", "nofile=61:70")
    assert pulled("run", "--rm", image).split()[0] == "61"
    errors = pulled.fails("build", "--ulimit", "nofile=-1", str(context), code=1, says="can't set ulimit nofile=-1:-1")
    assert "Dockerfile:2:" in errors
    pulled.fails("build", "--ulimit", "files=1", str(context), code=1, says="invalid ulimit type: files")
    pulled.fails("build", "--cgroup-parent", "../x", str(context), code=2, says="cgroup-parent '../x'")


def test_only_what_a_bind_mount_shows_counts(pulled: Scow, context: Path) -> None:
    """A manifest that is mounted while packages are installed: other files of the tree may change."""
    text = """FROM busybox AS made
COPY other list.txt /x/
FROM busybox
RUN --mount=type=bind,source=list.txt,target=/list cat /list; echo first >> /ran
RUN --mount=type=bind,from=made,source=/x/list.txt,target=/list cat /list; echo second >> /ran
RUN --mount=type=bind,source=up/dir/../../sub,target=/m ls /m >> /ran
CMD cat /ran
"""
    context.joinpath("sub").mkdir()
    (context / "sub" / "inner").write_text("x")
    (context / "sub" / "out").symlink_to("../list.txt")
    (context / "list.txt").write_text("a\n")
    (context / "other").write_text("words that nobody mounts")
    image = build(pulled, context, text, "-q")
    assert pulled("run", "--rm", image) == "first\nsecond\ninner\nout\n"
    layers = [path.read_bytes() for path in (pulled.root / "content").rglob("*") if path.is_file()]
    (context / "other").write_text("changed")
    (context / "more").write_text("new")
    assert build(pulled, context, text, "-q") == image
    (context / "list.txt").write_text("b\n")
    said = pulled.try_("build", "--progress=plain", str(context)).stderr.decode()
    assert "CACHED" not in said
    (context / "Dockerfile").write_text("FROM busybox\nRUN --mount=type=bind,source=none,target=/m true\n")
    pulled.fails("build", str(context), code=1, says="Dockerfile:2: 'none' is not in the build context")
    # Nothing but what was shown has become a layer: the stage's own COPY alone has the other file.
    assert sum(b"words that nobody mounts" in each for each in layers) == 1
