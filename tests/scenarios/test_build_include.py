"""INCLUDE in real contexts: directories, archives, hostile ones; errors and the cache know where it is written."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

from .conftest import Scow
from .test_build import build, context, launcher, steps

__all__ = ["context", "launcher"]

TEXT = "# scow=include\nFROM busybox\nINCLUDE parts/tool\nCOPY . /all\nCMD cat /made\n"


def parts(context: Path) -> Path:
    place = context / "parts"
    place.mkdir()
    (place / "tool").write_text("# a part\n\nINCLUDE parts/deeper\n")
    (place / "deeper").write_text("RUN echo made > /made\n")
    # What isn't to be copied may still be included.
    (context / ".dockerignore").write_text("parts\nDockerfile\n.dockerignore\n")
    (context / "code").write_text("code")
    return place


def test_it_is_built_and_known(pulled: Scow, context: Path) -> None:
    place = parts(context)
    build(pulled, context, TEXT, "-t", "built")
    assert pulled("run", "--rm", "built") == "made\n"
    assert pulled("run", "--rm", "built", "ls", "/all") == "code\n"
    assert "RUN /bin/sh -c echo made" in pulled("history", "--no-trunc", "built")
    assert steps(pulled, context, TEXT) == ([], ["RUN echo made > /made", "COPY . /all"])
    plain = TEXT.replace("INCLUDE parts/tool", "RUN echo made > /made").replace("# scow=include\n", "")
    assert steps(pulled, context, plain)[0] == []
    # A changed part is a changed Dockerfile.
    (place / "deeper").write_text("RUN echo other > /made\n")
    assert steps(pulled, context, TEXT)[0] == ["RUN echo other > /made", "COPY . /all"]
    plan = json.loads(pulled("build", "--print", "plan", str(context)))
    found = [(step["file"], step["line"]) for step in plan["stages"][0]["steps"]]
    assert found == [("parts/deeper", 1), ("Dockerfile", 4), ("Dockerfile", 5)]
    (context / "Dockerfile").write_text(TEXT.removeprefix("# scow=include\n"))
    pulled.fails("build", str(context), code=2, says="Dockerfile:2: unknown instruction: INCLUDE")
    pulled("build", "--include", str(context))


def test_what_is_wrong_is_shown_where_it_is_written(pulled: Scow, context: Path) -> None:
    place = parts(context)
    (context / "Dockerfile").write_text(TEXT)
    (place / "deeper").write_text("\nRUN echo a lot && false\n")
    said = pulled.fails("build", str(context), code=1, says="parts/deeper:2: process")
    assert "    2 | RUN echo a lot && false\n" in said
    assert "      | ^^^" in said
    (place / "deeper").write_text("MAINTAINER me\nCOPY --frm=x a b\n")
    said = pulled.fails("build", str(context), code=2, says="parts/deeper:2: unknown flag: --frm")
    (place / "deeper").write_text("MAINTAINER me\n")
    checked = pulled.try_("build", "--check", str(context)).stdout.decode()
    assert "\nparts/deeper:1\n" in checked
    (place / "deeper").write_text("INCLUDE parts/tool\n")
    pulled.fails("build", str(context), code=2, says="parts/deeper:1: parts/tool includes itself")


def test_it_never_leaves_the_context(pulled: Scow, context: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("RUN echo outside > /outside\n")
    place = parts(context)
    (context / "Dockerfile").write_text(TEXT)
    (place / "deeper").unlink()
    for target in (str(tmp_path / "outside"), "../../outside", "../../../../../../../../etc/passwd"):
        (place / "deeper").symlink_to(target)
        pulled.fails("build", str(context), code=2, says="parts/tool:3: parts/deeper is not in the context")
        (place / "deeper").unlink()
    (context / "Dockerfile").write_text(TEXT.replace("parts/tool", "../outside"))
    pulled.fails("build", str(context), code=2, says="Dockerfile:3: outside is not in the context")
    (context / "Dockerfile").write_text(TEXT)
    os.mkfifo(place / "deeper")
    pulled.fails("build", str(context), code=2, says="parts/deeper in the context can't be read", timeout=10)
    (place / "deeper").unlink()
    # A link within it is followed; an archive is a context, too.
    (place / "real").write_text("RUN echo linked > /made\n")
    (place / "deeper").symlink_to("/parts/real")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(context, ".")
    image = pulled("build", "-q", "-", stdin=buffer.getvalue()).strip()
    assert pulled("run", "--rm", image) == "linked\n"
    done = pulled.try_("build", "-", stdin=b"# scow=include\nFROM busybox\nINCLUDE x\n")
    assert done.returncode == 2
    assert b"there is no build context to include from" in done.stderr
