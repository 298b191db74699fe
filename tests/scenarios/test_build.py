"""scow build, end to end: images that run, a cache that knows what changed, no step that reaches the host."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import machine
from .conftest import Scow, require


@pytest.fixture(params=[True], ids=["warm"])
def launcher(request: pytest.FixtureRequest) -> bool:
    """Once with the launcher; what differs without it is no builder's business."""
    return bool(request.param)


@pytest.fixture
def context(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


def build(scow: Scow, context: Path, dockerfile: str, *flags: str) -> str:
    """Build; gives the image's ID."""
    (context / "Dockerfile").write_text(dockerfile)
    return scow("build", *flags, str(context)).strip()


def steps(scow: Scow, context: Path, dockerfile: str, *flags: str) -> tuple[list[str], list[str]]:
    """Build; gives what was done and what came from the cache, as instructions."""
    (context / "Dockerfile").write_text(dockerfile)
    done = scow.try_("build", "--progress", "rawjson", *flags, str(context))
    assert done.returncode == 0, done.stderr.decode()
    return titles(done.stderr)


def titles(progress: bytes) -> tuple[list[str], list[str]]:
    """What raw progress says was done, and what came from the cache, as instructions; not the images fetched."""
    statuses = [json.loads(line) for line in progress.decode().splitlines()]
    ended = [each for status in statuses for each in status.get("vertexes", ()) if "completed" in each]
    found: tuple[list[str], list[str]] = ([], [])
    for vertex in ended:
        _, bracket, instruction = vertex["name"].partition("] ")
        if bracket:
            found["cached" in vertex].append(instruction)
    return found


def config(scow: Scow, image: str) -> dict[str, object]:
    found = json.loads(scow("inspect", image))[0]["Config"]
    assert isinstance(found, dict)
    return found


def test_an_image_runs_and_says_what_was_written(pulled: Scow, context: Path) -> None:
    (context / "hello.txt").write_text("hello\n")
    image = build(
        pulled,
        context,
        """# syntax=docker/dockerfile:1
ARG BASE=busybox
FROM $BASE AS base
ARG WHO=nobody
ENV GREETING="hi $WHO" LATER=$GREETING
WORKDIR /srv
WORKDIR app
COPY --chmod=640 --chown=www:extra hello.txt ./copied
RUN echo "$GREETING" > said && ls -ln copied > listed
RUN <<EOF
echo one > doc
echo two >> doc
EOF
RUN ["/bin/sh", "-c", "echo exec >> doc"]
COPY <<-A <<'B' /docs/
	is $GREETING
	A
is $GREETING
B
EXPOSE 80 443/udp
USER www
LABEL a=b "c d"="e f"
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=3s CMD true
CMD ["sh", "-c", "cat said listed doc /docs/A /docs/B; id -u; pwd; echo later=$LATER"]
""",
        "-t",
        "mine",
        "--build-arg",
        "WHO=you",
        "--label",
        "from=flag",
    )
    assert image.startswith("sha256:")
    lines = pulled("run", "--rm", "mine").splitlines()
    assert lines[0] == "hi you"
    assert lines[1].startswith("-rw-r-----    1 33       44")
    assert lines[2:] == ["one", "two", "exec", "is hi you", "is $GREETING", "33", "/srv/app", "later="]
    found = config(pulled, "mine")
    assert found["User"] == "www"
    assert found["WorkingDir"] == "/srv/app"
    assert found["ExposedPorts"] == {"80/tcp": {}, "443/udp": {}}
    assert found["Labels"] == {"kind": "test", "a": "b", "c d": "e f", "from": "flag"}
    assert found["Volumes"] == {"/data": {}}
    assert found["StopSignal"] == "SIGINT"
    history = pulled("history", "--no-trunc", "mine")
    assert "RUN |1 WHO=you /bin/sh -c echo" in history
    assert pulled("run", "--rm", image, "echo", "by id") == "by id\n"


def test_the_cache_knows_what_changed(pulled: Scow, context: Path) -> None:
    (context / "list").write_text("1")
    (context / "code").write_text("1")
    text = "FROM busybox\nCOPY list /l\nRUN cat /l > /installed\nCOPY code /c\nRUN cat /c > /compiled\nCMD a\n"
    done, cached = steps(pulled, context, text)
    assert (len(done), len(cached)) == (4, 0)
    first = pulled("build", "-q", str(context))
    assert steps(pulled, context, text) == ([], done)
    assert pulled("build", "-q", str(context)) == first
    # Times don't count, content does, and only for what comes after.
    os.utime(context / "list")
    (context / "code").write_text("2")
    changed, kept = steps(pulled, context, text)
    assert changed == ["COPY code /c", "RUN cat /c > /compiled"]
    assert kept == ["COPY list /l", "RUN cat /l > /installed"]
    (context / "list").chmod(0o600)
    assert steps(pulled, context, text)[0][0] == "COPY list /l"
    said = pulled.try_("build", "--explain", "--progress", "plain", str(context)).stderr.decode()
    assert "CACHED" in said
    (context / "code").write_text("3")
    said = pulled.try_("build", "--explain", "--progress", "plain", str(context)).stderr.decode()
    assert "changed: the copied files (code)" in said
    assert len(steps(pulled, context, text, "--no-cache")[0]) == 4


def test_stages(pulled: Scow, context: Path) -> None:
    text = """FROM busybox AS build
RUN mkdir -p /out/sub && echo made > /out/sub/file && ln -s sub/file /out/link && chmod 700 /out/sub/file
FROM busybox AS unused
RUN false
FROM scratch AS last
COPY --from=build /out /
COPY --from=0 /bin/busybox /bin/busybox
COPY --from=docker.io/library/busybox /etc/passwd /etc/
CMD ["/bin/busybox", "cat", "/link"]
FROM last
CMD ["/bin/busybox", "ls", "-l", "/sub/file"]
"""
    done, _ = steps(pulled, context, text, "-t", "staged")
    assert "RUN false" not in done
    assert pulled("run", "--rm", "staged").startswith("-rwx------")
    build(pulled, context, text, "-t", "staged", "--target", "last")
    assert pulled("run", "--rm", "staged") == "made\n"
    # The stage is done again with the same result: what is copied from it isn't.
    again = text.replace("echo made", "echo  made")
    done, cached = steps(pulled, context, again, "--target", "last")
    assert len(done) == 1
    assert len(cached) == 3
    plan = json.loads(pulled("build", "--print", "plan", str(context)))
    assert [stage["name"] for stage in plan["stages"]] == ["build", "last", "stage-3"]


def test_mounts(pulled: Scow, context: Path, tmp_path: Path) -> None:
    (context / "seen").write_text("seen\n")
    (context / "hidden").write_text("hidden\n")
    (context / ".dockerignore").write_text("hidden\n")
    secret = tmp_path / "secret"
    secret.write_text("very secret words")
    text = """FROM busybox AS other
RUN mkdir /d && echo stage > /d/f
FROM busybox
RUN --mount=target=/ctx ls /ctx > /list && ! touch /ctx/x
RUN --mount=from=other,source=/d,target=/m,rw cat /m/f > /m/g && cat /m/g >> /list
RUN --mount=type=cache,target=/cache,id=mine echo x >> /cache/count && wc -l < /cache/count >> /list
RUN --mount=type=tmpfs,target=/t touch /t/gone
RUN --mount=type=secret,id=s,env=WORDS --mount=type=secret,id=s,mode=0444,uid=33 \
    test "$WORDS" = "$(cat /run/secrets/s)" && stat -c %a:%u /run/secrets/s >> /list
RUN --mount=type=secret,id=none true
RUN <<EOF
#!/bin/cat
script
EOF
RUN --network=none ! ip link | grep -q eth0
CMD cat /list; ls -d /ctx /m /cache /t /run/secrets
"""
    build(pulled, context, text, "-t", "mounted", "--secret", f"id=s,src={secret}")
    done = pulled.try_("run", "--rm", "mounted")
    assert done.stdout.decode().split() == ["Dockerfile", "seen", "stage", "1", "444:33"]
    assert done.stderr.decode().count("No such file") == 5
    build(pulled, context, text, "-t", "mounted", "--secret", f"id=s,src={secret}", "--no-cache")
    assert pulled("run", "--rm", "mounted", "cat", "/list").split()[3] == "2"
    places = [str(pulled.root), str(pulled.run_dir)]
    kept = subprocess.run(["grep", "-rl", "very secret words", *places], capture_output=True, check=False)
    assert not kept.stdout, kept.stdout


def test_links_stay_where_they_are(pulled: Scow, context: Path, tmp_path: Path) -> None:
    """Neither COPY nor a mount reaches the host, whatever links say."""
    host = tmp_path / "host-secret"
    host.write_text("of the host")
    (context / "absolute").symlink_to(host)
    (context / "up").symlink_to("../host-secret")
    (context / "dir").mkdir()
    (context / "dir" / "inner").symlink_to(host)
    for source in ("absolute", "up", f"../{host.name}", str(host)):
        (context / "Dockerfile").write_text(f"FROM busybox\nCOPY {source} /x\n")
        errors = pulled.fails("build", str(context), code=1, says="Dockerfile:2: ")
        assert "of the host" not in errors
    image = build(pulled, context, "FROM busybox\nCOPY dir /x\nRUN ln -s / /root-link\nCOPY dir /root-link/y/\n", "-q")
    assert pulled("run", "--rm", image, "readlink", "/x/inner").strip() == str(host)
    assert pulled("run", "--rm", image, "ls", "/y").split() == ["inner"]
    assert not Path("/y").exists()
    # podman 4 has read the host here.
    text = f"FROM busybox AS a\nRUN ln -s {host.parent} /link && ln -s ../../../../.. /out\n"
    for source in (f"/link/{host.name}", f"/out{host}"):
        mount = f"FROM busybox\nRUN --mount=type=bind,from=a,source={source},target=/x cat /x\n"
        (context / "Dockerfile").write_text(text + mount)
        errors = pulled.fails("build", str(context), code=1, says="links never lead out of stage 0")
        assert "of the host" not in errors


def _tar(names: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mode, member.uid, member.gid = 0o640, 5, 6
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    handler = type(
        "Handler",
        (http.server.SimpleHTTPRequestHandler,),
        {
            "log_message": lambda *_: None,
            "__init__": lambda self, *a: http.server.SimpleHTTPRequestHandler.__init__(self, *a, directory=directory),
        },
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_add(pulled: Scow, context: Path) -> None:
    (context / "a.tgz").write_bytes(gzip.compress(_tar({"in/file": b"unpacked\n"})))
    (context / "plain.tar").write_bytes(_tar({"p": b"plain\n"}))
    (context / "no-archive.tar").write_text("text\n")
    digest = hashlib.sha256((context / "plain.tar").read_bytes()).hexdigest()
    with served(context) as url:
        image = build(
            pulled,
            context,
            f"""FROM busybox
ADD a.tgz plain.tar no-archive.tar /to/
ADD --unpack=false a.tgz /kept.tgz
ADD {url}/no-archive.tar /url/
ADD --checksum=sha256:{digest} {url}/plain.tar /sure
""",
            "-q",
        )
        files = ("/to/in/file", "/to/p", "/to/no-archive.tar", "/url/no-archive.tar")
        assert pulled("run", "--rm", image, "cat", *files) == "unpacked\nplain\ntext\ntext\n"
        assert pulled("run", "--rm", image, "stat", "-c", "%a %u %g", "/to/in/file").strip() == "640 5 6"
        assert pulled("run", "--rm", image, "stat", "-c", "%a", "/url/no-archive.tar").strip() == "600"
        wrong = "sha256:" + "0" * 64
        (context / "Dockerfile").write_text(f"FROM busybox\nADD --checksum={wrong} {url}/plain.tar /x\n")
        pulled.fails("build", str(context), code=1, says="Dockerfile:2: ")
    (context / "evil.tar").write_bytes(_tar({"../../evil": b"x"}))
    (context / "Dockerfile").write_text("FROM busybox\nADD evil.tar /x/\n")
    pulled.fails("build", str(context), code=2, says="leads out of its target")


def test_patterns_and_excludes(pulled: Scow, context: Path) -> None:
    for name in ("a.txt", "b.txt", "c.md", "sub/d.txt", "sub/deep/e.txt", "node_modules/x/y"):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text(name)
    (context / ".dockerignore").write_text("node_modules\n*.md\n")
    image = build(
        pulled,
        context,
        """FROM busybox
COPY *.txt /one/
COPY --exclude=**/e.txt . /two/
COPY --parents sub/./deep/e.txt sub/d.txt /three/
COPY s?b/[d] /none/
COPY sub /four
""",
        "-q",
    )
    found = pulled("run", "--rm", image, "find", "/one", "/two", "/three", "/four", "-type", "f").split()
    assert sorted(found) == [
        "/four/d.txt", "/four/deep/e.txt", "/one/a.txt", "/one/b.txt", "/three/deep/e.txt", "/three/sub/d.txt",
        "/two/.dockerignore", "/two/Dockerfile", "/two/a.txt", "/two/b.txt", "/two/sub/d.txt",
    ]  # fmt: skip
    (context / "Dockerfile").write_text("FROM busybox\nCOPY c.md /x\n")
    pulled.fails("build", str(context), code=1, says="Dockerfile:2: 'c.md' is left out by .dockerignore")


def test_triggers_and_named_contexts(pulled: Scow, context: Path, tmp_path: Path) -> None:
    (context / "app").write_text("app\n")
    build(pulled, context, "FROM busybox\nONBUILD COPY app /app\nONBUILD RUN cat /app > /ran\n", "-t", "parent")
    assert config(pulled, "parent")["OnBuild"] == ["COPY app /app", "RUN cat /app > /ran"]
    build(pulled, context, "FROM parent\nCMD cat /ran\n", "-t", "child")
    assert pulled("run", "--rm", "child") == "app\n"
    assert config(pulled, "child")["OnBuild"] is None
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("other\n")
    image = build(
        pulled,
        context,
        "FROM base\nCOPY --from=more file /\nCMD cat /file\n",
        "-q",
        "--build-context",
        f"more={other}",
        "--build-context",
        "base=docker-image://busybox",
    )
    assert pulled("run", "--rm", image) == "other\n"


def test_a_step_leaves_only_what_it_wrote(pulled: Scow, context: Path) -> None:
    """Neither /etc/hosts nor places of mounts get into a layer; what is removed is gone, also under the same name."""
    text = """FROM scratch
COPY --from=busybox /bin /bin
RUN --mount=type=tmpfs,target=/some/where mkdir /d && touch /d/old /d/kept
RUN rm -r /d && mkdir /d && touch /d/new
"""
    image = build(pulled, context, text, "-q")
    container = pulled("create", image, "x").strip()
    done = pulled.try_("export", container)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        names = {name.strip("./") for name in tar.getnames()} - {""}
    made = {"dev", "proc", "sys", "etc", "etc/hosts", "etc/hostname", "etc/resolv.conf"}
    assert {name for name in names - made if not name.startswith("bin")} == {"d", "d/new"}


def test_the_same_everywhere(pulled: Scow, context: Path) -> None:
    """With SOURCE_DATE_EPOCH and a cold cache two builds give one digest."""
    (context / "f").write_text("x")
    text = "FROM busybox\nCOPY f /d/\nWORKDIR /w/x\nRUN echo 1 > /w/y && mkdir /w/z\nLABEL a=b\n"
    flags = ("-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000")
    first = build(pulled, context, text, *flags)
    time.sleep(1.1)
    os.utime(context / "f")
    for storage in ("erofs", "overlay", "native"):
        assert build(pulled, context, text, *flags, "--storage", storage) == first, storage
    assert pulled("run", "--rm", first, "stat", "-c", "%Y", "/w/y").strip() == "1000000000"


BAD = [
    ("FROM busybox\nRUN exit 7\n", "did not complete successfully: exit code: 7", 1),
    ("FROM busybox\nRUN echo last words; false\n", "> last words", 1),
    ("FROM busybox\nCOPY nothing /\n", "Dockerfile:2: 'nothing' is not in the build context", 1),
    ("FROM busybox\nRNU x\n", "Dockerfile:2: unknown instruction: RNU", 2),
    ("RUN x\n", "no build stage in current context", 2),
    (
        "FROM busybox AS b\nCOPY --from=c /x /y\nFROM busybox AS c\nCOPY --from=b /x /y\n",
        "circular dependency detected on stage c: c → b → c",
        2,
    ),
    ("FROM busybox\nCOPY --from=5 x y\n", "invalid stage index 5", 2),
    ("FROM busybox\nRUN --mount=type=secret,id=x,required true\n", "secret x: not found", 1),
    ("FROM busybox\nRUN --security=insecure true\n", "security.insecure is not allowed", 2),
    ("FROM busybox\nCOPY a b /c\n", "destination must be a directory and end with a /", 2),
    ('FROM busybox\nRUN ["/nothing"]\n', "Dockerfile:2: ", 1),
    ("FROM busybox\nUSER nobody-here\nRUN true\n", "Dockerfile:3: ", 1),
    ("FROM busybox\nWORKDIR /etc/passwd\n", "is no directory in the image", 2),
    ("FROM busybox\nCOPY Dockerfile /etc/passwd/x\n", "cannot copy to non-directory: /etc/passwd", 2),
    ("FROM busybox\nCOPY --chown=nobody-here Dockerfile /\n", "unable to find user nobody-here", 2),
]


def test_bad_input(pulled: Scow, context: Path) -> None:
    for text, says, code in BAD:
        (context / "Dockerfile").write_text(text)
        pulled.fails("build", "-t", "never", str(context), code=code, says=says)
    assert pulled("images", "-q").count("\n") == 1
    assert not list((pulled.root / "build" / "work").glob("*"))


def test_names_and_flags_are_checked_first(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN false\n")
    pulled.fails("build", "-t", "Capital", str(context), code=2, says="Capital")
    pulled.fails("build", "--push", str(context), code=1, says="--push needs a name")
    pulled.fails("build", "--squash", str(context), code=125, says="--squash is not supported")
    pulled.fails("build", str(context / "none"), code=1, says="not found")
    pulled.fails("build", "-f", "none", str(context), code=1, says="failed to read dockerfile")
    assert (
        "from standard input"
        in pulled.try_(
            "build", "--progress=plain", "-", stdin=b"FROM busybox\nRUN echo from standard input\n"
        ).stderr.decode()
    )


def test_checks(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox as x\nCMD foo\nENV PASSWORD=1\n")
    done = pulled.try_("build", "--check", str(context))
    said = done.stdout.decode()
    assert done.returncode == 1
    for rule in ("FromAsCasing", "JSONArgsRecommended", "SecretsUsedInArgOrEnv"):
        assert f"WARNING: {rule}" in said
    assert "    2 | CMD foo\n      |     ^^^" in said


def test_interrupted(pulled: Scow, context: Path) -> None:
    """Ctrl-C and kill -9 leave nothing that the next build doesn't remove."""
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo there; sleep 4321\n")
    for number in (signal.SIGINT, signal.SIGKILL):
        # What works for a command outlives the command's own kill -9; so the builder itself is killed.
        pulled.warm = number is signal.SIGINT
        process = pulled.start(
            "build",
            str(context),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Whoever runs the tests in the background has it ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            assert machine.eventually(_sleeps)
            process.send_signal(number)
            process.wait(20)
        finally:
            process.kill()
            process.wait()
        assert machine.eventually(lambda: not _sleeps())
    (context / "Dockerfile").write_text("FROM busybox\nRUN true\n")
    pulled("build", "-q", str(context))
    assert machine.eventually(lambda: not list((pulled.root / "build" / "work").glob("*")))


def _sleeps() -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if b"sleep\x004321\x00" in path.read_bytes():
                return True
    return False


def test_others_run_what_is_built(pulled: Scow, registry: str, context: Path, tmp_path: Path) -> None:
    require("skopeo")
    with pulled.config.open("a") as file:
        file.write(f'[registries."{registry}"]\ninsecure = true\n')
    pushed, metadata = f"{registry}/built/image:1", tmp_path / "metadata"
    build(pulled, context, "FROM busybox\nCMD x\n", "-t", pushed, "--push", "--metadata-file", str(metadata))
    seen = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{pushed}"], capture_output=True, check=True
    )
    said = json.loads(metadata.read_text())
    assert (
        json.loads(seen.stdout)["Digest"]
        == said["containerimage.digest"]
        == said["containerimage.descriptor"]["digest"]
    )
    assert said["containerimage.descriptor"]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    build(pulled, context, 'FROM busybox\nRUN echo x > /x\nCMD ["cat", "/x"]\n', "-t", "shared:1")
    archive = tmp_path / "shared.tar"
    pulled("save", "-o", str(archive), "shared:1")
    found = subprocess.run(
        ["skopeo", "inspect", "--config", f"docker-archive:{archive}"], capture_output=True, check=True
    )
    assert json.loads(found.stdout)["config"]["Cmd"] == ["cat", "/x"]


def test_a_working_directory_belongs_to_the_user(pulled: Scow, context: Path) -> None:
    """As BuildKit makes it; one that is there stays as it is."""
    text = """FROM busybox
RUN mkdir /there
USER 7
WORKDIR /there
WORKDIR /numbers/deep
USER www:extra
WORKDIR /names
HEALTHCHECK --interval=90s CMD true
CMD stat -c '%u:%g' /there /numbers /numbers/deep /names
"""
    image = build(pulled, context, text, "-q")
    assert pulled("run", "--rm", image).split() == ["0:0", "7:7", "7:7", "33:44"]
    assert config(pulled, image)["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 90 * 10**9}


def test_several_files_and_several_names(pulled: Scow, context: Path) -> None:
    """A wildcard may mean several files where the destination is a directory; hard links stay such."""
    for name in ("package.json", "package-lock.json"):
        (context / name).write_text("{}\n")
    os.link(context / "package.json", context / "other")
    text = """FROM busybox AS linked
RUN mkdir -p /d/sub && echo x > /d/one && ln /d/one /d/sub/two
FROM busybox
WORKDIR /app
COPY package*.json /app
COPY --from=linked --chown=5:6 /d /d
COPY . /all/
CMD ls /app; stat -c '%h %u' /d/one /d/sub/two; stat -c %h /all/other; rm /d/one; cat /d/sub/two
"""
    image = build(pulled, context, text, "-q")
    lines = pulled("run", "--rm", image).splitlines()
    assert lines == ["package-lock.json", "package.json", "2 5", "2 5", "2", "x"]
    (context / "Dockerfile").write_text("FROM busybox\nCOPY package*.json /none\n")
    pulled.fails("build", str(context), code=2, says="the destination must be a directory and end with a /")


def test_two_builds_do_a_step_once(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN sleep 2; cat /proc/sys/kernel/random/uuid > /which\n")
    command = [*pulled.command(), "build", "--progress", "rawjson", str(context)]
    both = [
        subprocess.Popen(command, env=pulled.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    found = [titles(progress) for _, progress in ended]
    assert sorted(len(done) for done, _ in found) == [0, 1]
    assert ended[0][0] == ended[1][0]


def test_a_copy_is_known_by_its_sources_name(pulled: Scow, context: Path) -> None:
    for name in ("a/one", "b/one", "a/two"):
        (context / name).mkdir(parents=True)
        (context / name / "f").write_text("same")
    done, _ = steps(pulled, context, "FROM busybox\nCOPY a/one /d/\n")
    assert len(done) == 1
    done, kept = steps(pulled, context, "FROM busybox\nCOPY b/one /d/\n")
    assert (len(done), len(kept)) == (0, 1)
    done, _ = steps(pulled, context, "FROM busybox\nCOPY a/two /d/\n")
    assert len(done) == 1
