"""What a stranger's Dockerfile and context get of the machine: nothing that the user hasn't granted."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Scow
from .test_build import context, launcher

__all__ = ["context", "launcher"]

SECRET = "nobody should see this"


@pytest.fixture
def service() -> Iterator[int]:
    """A port of this machine's loopback behind which somebody says a secret."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.sendall(SECRET.encode() + b"\n")
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def build(scow: Scow, context: Path, *flags: str) -> str:
    """Build what lies there; gives the image's ID."""
    return scow("build", "-q", *flags, str(context)).strip()


def test_the_network_of_the_machine_is_asked_for(pulled: Scow, context: Path, service: int) -> None:
    (context / "Dockerfile").write_text(f"FROM busybox\nRUN --network=host nc 127.0.0.1 {service} > /got\n")
    errors = pulled.fails("build", str(context), code=2, says="Dockerfile:2: network.host is not allowed")
    assert "--allow network.host" in errors
    for flags in (("--allow", "network.host"), ("--network", "host")):
        image = build(pulled, context, "--no-cache", *flags)
        assert pulled("run", "--rm", "--network", "none", image, "cat", "/got").strip() == SECRET


def test_triggers_of_a_base_ask_too(pulled: Scow, context: Path, service: int) -> None:
    (context / "Dockerfile").write_text(
        f"FROM busybox\nONBUILD RUN --network=host nc 127.0.0.1 {service} > /got\n"
        "ONBUILD RUN --security=insecure true\n"
    )
    build(pulled, context, "-t", "base")
    (context / "Dockerfile").write_text("FROM base\n")
    pulled.fails("build", str(context), code=2, says="network.host is not allowed")
    pulled.fails("build", "--allow", "network.host", str(context), code=2, says="security.insecure is not allowed")
    build(pulled, context, "--allow", "network.host,security.insecure")


def test_stages_that_are_not_built_need_no_leave(pulled: Scow, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox AS other\nRUN --network=host true\nFROM busybox\nRUN true\n")
    build(pulled, context)


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore", "included"])
@pytest.mark.parametrize("kind", ["absolute link", "climbing link", "device", "pipe", "directory"])
def test_what_lies_in_a_context_is_a_file_of_it(pulled: Scow, context: Path, name: str, kind: str) -> None:
    """Nothing of the machine's is shown, nobody waits, and memory doesn't fill."""
    outside = context.parent / "outside"
    outside.write_text(SECRET)
    (context / "Dockerfile").write_text("# scow=include\nFROM busybox\nINCLUDE included\nCOPY . /x/\n")
    (context / "included").write_text("RUN true\n")
    path = context / name
    path.unlink(missing_ok=True)
    match kind:
        case "absolute link":
            path.symlink_to(outside)
        case "climbing link":
            path.symlink_to("../outside")
        case "device":
            os.mknod(path, 0o20644, os.makedev(1, 5))
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()
    done = pulled.try_("build", "-q", str(context), timeout=20)
    said = (done.stdout + done.stderr).decode()
    assert SECRET not in said
    assert "Traceback" not in said
    if "link" in kind and name.endswith("ignore"):
        assert done.returncode == 0, said  # in there, that name leads nowhere
    else:
        assert done.returncode in (1, 2), said
        assert name in said


def test_links_within_a_context_are_followed(pulled: Scow, context: Path) -> None:
    (context / "real").mkdir()
    (context / "real" / "file").write_text("FROM busybox\nCOPY real/kept /kept\nCOPY . /all/\n")
    (context / "real" / "kept").write_text("kept")
    (context / "real" / "ignored").write_text("ignored")
    (context / "real" / "ignore").write_text("real/ignored\n")
    (context / "Dockerfile").symlink_to("/real/file")
    (context / ".dockerignore").symlink_to("real/ignore")
    assert pulled("run", "--rm", "--network", "none", build(pulled, context), "ls", "/all/real").split() == [
        "file", "ignore", "kept",
    ]  # fmt: skip


def test_a_file_named_by_the_user_may_be_anywhere(pulled: Scow, context: Path) -> None:
    """A link, a pipe; but in the context it is one of the context."""
    outside = context.parent / "outside"
    outside.write_text("FROM busybox\nRUN echo outside > /made\n")
    link = context.parent / "link"
    link.symlink_to(outside)
    pipe = context.parent / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("FROM busybox\nRUN echo piped > /made\n"))
    writer.start()
    assert build(pulled, context, "-f", str(pipe))
    writer.join(10)
    assert build(pulled, context, "-f", str(link))
    (context / "inner").symlink_to(outside)
    pulled.fails("build", "-f", str(context / "inner"), str(context), code=1, says="inner is not in the context")


@pytest.mark.parametrize("flag", ["--env-file", "--label-file", "--secret", "-f"])
def test_an_endless_file_is_too_large(pulled: Scow, context: Path, flag: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\n")
    value = "id=a,src=/dev/zero" if flag == "--secret" else "/dev/zero"
    command = ("create", flag, value, "busybox") if flag.endswith("-file") else ("build", flag, value, str(context))
    code = 125 if command[0] == "create" else 2
    done = pulled.try_(*command, timeout=20)
    assert done.returncode in (code, 2), done.stderr
    assert b"is larger than" in done.stderr
