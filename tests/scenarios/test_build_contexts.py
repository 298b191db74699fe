"""Contexts that are no directories: archives on standard input, URLs, git repositories. None of them leads out."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import signal
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from . import machine
from .conftest import Scow, free_port, require
from .test_build import build, context, launcher, served, steps

__all__ = ["context", "launcher"]


def archive(files: dict[str, bytes], links: dict[str, str] | None = None, *, hard: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uid = len(content), 0o640, 7
            tar.addfile(member, io.BytesIO(content))
        if hard:
            member = tarfile.TarInfo("hard")
            member.type, member.linkname = tarfile.LNKTYPE, hard
            tar.addfile(member)
    return buffer.getvalue()


FILES = {
    "Dockerfile": b"FROM busybox\nCOPY . /all/\nCOPY sub/seen /seen\nCMD cat /seen; ls /all\n",
    "other": b"FROM busybox\nCOPY sub /sub\nCMD stat -c '%a %u' /sub/seen\n",
    ".dockerignore": b"hidden\n",
    "hidden": b"x",
    "sub/seen": b"seen\n",
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: bytes(zstandard.ZstdCompressor().compress(data)),
}


def test_archives_on_standard_input(pulled: Scow) -> None:
    data = archive(FILES)
    first = ""
    for name, pack in PACKERS.items():
        image = pulled("build", "-q", "-", stdin=pack(data)).strip()
        assert first in ("", image), name
        first = image
    assert pulled("run", "--rm", first).split() == ["seen", "Dockerfile", "other", "sub"]
    other = pulled("build", "-q", "-f", "other", "-", stdin=data).strip()
    assert pulled("run", "--rm", other).split() == ["640", "0"]
    plan = json.loads(pulled("build", "--print", "plan", "-", stdin=data))
    assert len(plan["stages"][0]["steps"]) == 3
    assert not list((pulled.root / "build" / "work").glob("*"))


def failing(scow: Scow, data: bytes, *flags: str) -> str:
    done = scow.try_("build", *flags, "-", stdin=data)
    errors = done.stderr.decode()
    assert done.returncode in (1, 2), (done.returncode, errors)
    assert "Traceback" not in errors
    return errors


def test_hostile_archives_stay_inside(pulled: Scow, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.write_text("of the host")
    plain = b"FROM busybox\nCOPY x /x\n"
    assert "climbs out" in failing(pulled, archive({"Dockerfile": plain, "../../evil": b"x"}))
    # A link to the host, and a file through it: it stays in the context.
    through = archive({"Dockerfile": b"FROM busybox\nCOPY d/f /f\nCMD cat /f\n", "d/f": b"in\n"}, {"d": str(tmp_path)})
    done = pulled.try_("build", "-q", "-", stdin=through)
    assert pulled("run", "--rm", done.stdout.decode().strip()) == "in\n"
    assert not (tmp_path / "f").exists()
    # The Dockerfile and the ignore file themselves as links to the host.
    assert "of the host" not in failing(pulled, archive({"x": b"x"}, {"Dockerfile": str(host)}))
    found = failing(pulled, archive({"Dockerfile": plain}, {"x": str(host)}))
    assert "'x' is not in the build context" in found
    assert "of the host" not in found
    failing(pulled, archive({"Dockerfile": plain}, hard=str(host)))
    assert "failed to read dockerfile: Dockerfile is not in the context" in failing(pulled, archive({"x": b""}))
    assert "cut short" in failing(pulled, gzip.compress(archive({"x": os.urandom(5000)}))[:-100])
    failing(pulled, archive({"Dockerfile": plain, "x": b"x" * 4096})[:-9000])
    failing(pulled, bz2.compress(b"x" * 9000)[:-30])
    assert "there is no context that could hold the file other" in failing(pulled, plain, "-f", "other")
    pulled.fails("build", "-f", "-", "-", code=1, says="can't use stdin for both")
    assert not list((pulled.root / "build" / "work").glob("*"))


def test_a_context_that_never_comes_can_be_interrupted(pulled: Scow) -> None:
    process = pulled.start(
        "build",
        "-",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdin is not None
        process.stdin.write(gzip.compress(archive({"x": os.urandom(9000)}))[:5000])
        process.stdin.flush()
        assert machine.eventually(lambda: bool(list((pulled.root / "build" / "work").glob("*/*/content"))))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                pipe.close()
    assert machine.eventually(lambda: not list((pulled.root / "build" / "work").glob("*")))


def test_urls(pulled: Scow, context: Path) -> None:
    (context / "context.tar.gz").write_bytes(gzip.compress(archive(FILES)))
    (context / "My.Dockerfile").write_text("FROM busybox\nCMD echo from a URL\n")
    with served(context) as url:
        image = pulled("build", "-q", f"{url}/context.tar.gz").strip()
        assert pulled("run", "--rm", image).startswith("seen\n")
        image = pulled("build", "-q", f"{url}/My.Dockerfile").strip()
        assert pulled("run", "--rm", image) == "from a URL\n"
        pulled.fails("build", "-f", "x", f"{url}/My.Dockerfile", code=2, says="is no archive")
        pulled.fails("build", f"{url}/none.tar", code=1, says="404")
        # A named context, and a Dockerfile on standard input beside a context that is elsewhere.
        text = b"FROM busybox\nCOPY --from=more sub/seen /a\nCOPY sub/seen /b\nCMD cat /a /b\n"
        done = pulled.try_(
            "build",
            "-q",
            "-f",
            "-",
            "--build-context",
            f"more={url}/context.tar.gz",
            f"{url}/context.tar.gz",
            stdin=text,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert pulled("run", "--rm", done.stdout.decode().strip()) == "seen\nseen\n"


def git(where: Path, *words: str) -> str:
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(where),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{who}_{what}": "x@y" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "GIT_AUTHOR_DATE": "1700000000 +0000",
        "GIT_COMMITTER_DATE": "1700000000 +0000",
    }
    done = subprocess.run(["git", "-C", str(where), *words], capture_output=True, check=True, env=env)
    return done.stdout.decode().strip()


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """app (two commits, a tag, a branch, a submodule, links) and sub."""
    require("git")
    home = tmp_path_factory.mktemp("repositories")
    for name in ("sub", "app"):
        git(home, "init", "-q", "-b", "main", name)
    (home / "sub" / "inner").write_text("of the submodule\n")
    git(home / "sub", "add", ".")
    git(home / "sub", "commit", "-qm", "sub")
    app = home / "app"
    (app / "Dockerfile").write_text("FROM busybox\nCOPY . /src\nCMD cat /src/version; ls -A /src\n")
    (app / "version").write_text("one\n")
    (app / "dir").mkdir()
    (app / "dir" / "Dockerfile").write_text("FROM busybox\nCOPY here /here\nCMD cat /here\n")
    (app / "dir" / "here").write_text("here\n")
    os.symlink("dir", app / "linked")
    os.symlink("/etc", app / "out")
    git(app, "add", ".")
    git(app, "commit", "-qm", "one")
    git(app, "tag", "-am", "one", "v1")
    git(app, "branch", "side")
    (app / "version").write_text("two\n")
    git(app, "commit", "-qam", "two")
    git(app, "checkout", "-q", "-b", "modules")
    git(app, "-c", "protocol.file.allow=always", "submodule", "add", "-q", "../sub", "module")
    git(app, "commit", "-qm", "modules")
    git(app, "checkout", "-q", "main")
    for name in ("sub", "app"):
        git(home, "clone", "-q", "--bare", str(home / name), f"{name}.git")
        git(home / f"{name}.git", "update-server-info")
    shutil.rmtree(home / "sub")
    return home


@pytest.fixture(scope="module")
def daemon(repositories: Path) -> Iterator[str]:
    """A git server on loopback; gives git://host:port."""
    port = free_port()
    process = subprocess.Popen(
        ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", "--export-all", f"--base-path={repositories}"],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert machine.eventually(lambda: _answers(port))
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(10)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_git_contexts(pulled: Scow, daemon: str, repositories: Path) -> None:
    app = f"{daemon}/app.git"

    def runs(place: str, *flags: str) -> list[str]:
        return pulled("run", "--rm", pulled("build", "-q", *flags, place).strip()).split()

    assert runs(app) == ["two", "Dockerfile", "dir", "linked", "out", "version"]
    assert runs(f"{app}#v1")[0] == runs(f"{app}#side")[0] == runs(f"{app}?tag=v1")[0] == "one"
    first = git(repositories / "app", "rev-parse", "v1^{commit}")
    assert runs(f"{app}#{first}")[0] == "one"
    assert runs(f"{app}#main:dir") == runs(f"{app}#:linked") == runs(f"{app}?branch=side&subdir=dir") == ["here"]
    assert ".git" in runs(app, "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
    assert "module" in runs(f"{app}#modules")
    pulled.fails("build", f"{app}#none", code=1, says="has no none")
    pulled.fails("build", f"{app}#main:none", code=1, says="has no directory none")
    pulled.fails("build", f"{app}#main:out", code=1, says="has no directory out")
    pulled.fails("build", f"{app}#--upload-pack=x", code=2, says="is no name of a branch")
    pulled.fails("build", f"{app}?tag=v1&checksum={'0' * 40}", code=1, says=f"is the commit {first}, not 000")
    pulled.fails("build", f"{daemon}/none.git", code=1, says="none.git")
    assert not list((pulled.root / "build" / "work").glob("*"))


def test_git_over_http_that_knows_files_only(pulled: Scow, repositories: Path) -> None:
    with served(repositories) as url:
        image = pulled("build", "-q", f"{url}/app.git#v1").strip()
        assert pulled("run", "--rm", image).startswith("one\n")


def test_repositories_name_no_files_of_this_machine(pulled: Scow, repositories: Path, tmp_path: Path) -> None:
    """Submodules neither: a local path or a command as a transport is refused."""
    mark = tmp_path / "mark"
    for url in (str(repositories / "app.git"), f"file://{repositories}/app.git", f"ext::touch {mark}"):
        evil = tmp_path / f"evil{abs(hash(url))}"
        git(tmp_path, "init", "-q", "-b", "main", str(evil))
        (evil / "Dockerfile").write_text("FROM busybox\n")
        (evil / ".gitmodules").write_text(f'[submodule "m"]\n\tpath = m\n\turl = {url}\n\tupdate = !touch {mark}\n')
        git(evil, "add", ".")
        commit = git(repositories / "app", "rev-parse", "main")
        git(evil, "update-index", "--add", "--cacheinfo", f"160000,{commit},m")
        git(evil, "commit", "-qm", "evil")
        git(tmp_path, "clone", "-q", "--bare", str(evil), f"{evil}.git")
        git(Path(f"{evil}.git"), "update-server-info")
        with served(tmp_path) as served_at:
            errors = pulled.try_("build", f"{served_at}/{evil.name}.git").stderr.decode()
        assert "not allowed" in errors or "update" in errors or "!touch" in errors, errors
        assert not mark.exists()


def test_add_of_git(pulled: Scow, context: Path, daemon: str, repositories: Path) -> None:
    app = f"{daemon}/app.git"
    first = git(repositories / "app", "rev-parse", "v1^{commit}")
    text = f"""FROM busybox
ADD {app}#v1 /one
ADD --keep-git-dir=true --checksum={first[:12]} {app}#v1 /kept
ADD --chown=5:6 {app}#main:dir /dir/
CMD cat /one/version; ls -A /one | head -n 1; ls -d /kept/.git; stat -c '%u %g %Y' /dir/here
"""
    image = build(pulled, context, text, "-q")
    assert pulled("run", "--rm", image).split() == ["one", "Dockerfile", "/kept/.git", "5", "6", "1700000000"]
    # Known by the commit: the same one under another name is in the cache.
    assert steps(pulled, context, text.replace("/app.git#v1 /one", "/app.git#side /one"))[0] == []
    flags = ("-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1800000000")
    again = build(pulled, context, text.replace("--keep-git-dir=true", ""), *flags)
    assert build(pulled, context, text.replace("--keep-git-dir=true", ""), *flags) == again
    for line, says in (
        (f"ADD --checksum={'1' * 40} {app}#v1 /x", "Dockerfile:2: "),
        (f"ADD {app}#none /x", "has no none"),
        ("ADD --keep-git-dir Dockerfile /x", "--keep-git-dir needs a source that is a git repository"),
    ):
        (context / "Dockerfile").write_text(f"FROM busybox\n{line}\n")
        assert says in pulled.try_("build", str(context)).stderr.decode()


def test_without_git(pulled: Scow, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    pulled.env["PATH"] = str(empty)
    pulled.fails("build", "https://127.0.0.1/x.git", code=1, says="the program git is not installed")
