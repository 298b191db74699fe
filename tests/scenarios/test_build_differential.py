"""The same Dockerfiles built by buildah and by scow: the same configuration and the same files.

Owner, mode, content, links, devices and extended attributes are compared of every path; times aren't. What differs and
may is in `ALLOWED`, with the reason.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Scow, engine_at, require
from .flatten import Entry, image_of

#: Fields of the configuration that may differ.
ALLOWED = {
    "history": "each builder words its steps its own way",
    "created": "a moment",
    "rootfs": "layers are cut and packed differently; their files are compared",
    "container": "buildah names the container that it has worked in",
    "parent": "the base's ID, a word of docker's classic builder",
    "container_config": "the same container's",
    "docker_version": "who made it",
    "Hostname": "the same container's, which runs nowhere",
}
#: Labels that a builder puts into every image.
OWN_LABELS = {"io.buildah.version"}
#: Settings that mean the same as none.
MEANS_NOTHING = {"WorkingDir": "/"}
#: What buildah's chroot isolation binds over the root file system; it leaves the places that it has made for that.
OWN_PATHS = {
    *("/dev", "/proc", "/run", "/run/.containerenv", "/run/secrets", "/sys"),
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"),
}

#: Paths of a case that differ.
OTHERS_MISTAKES = {
    "copies": {"/all/setuid": "buildah 1.28 sets the owner after the mode, which takes the bit away; docker keeps it"},
    "archives": dict.fromkeys(
        ("/given/in", "/given/in/file", "/given/in/link"),
        "buildah 1.28 leaves an archive's entries their owners, whatever --chown says; BuildKit gives them all",
    ),
}


def some_files(context: Path) -> None:
    """A context with modes, links, odd names, an archive, and things that are ignored."""
    for name, mode in {
        "app/main": 0o755,
        "app/lib/a.txt": 0o644,
        "app/lib/b.txt": 0o600,
        "app/lib/.hidden": 0o640,
        "app/lib/deep/er/c.txt": 0o444,
        "setuid": 0o4755,
        "with space": 0o644,
        "ünï/cödé": 0o644,
        "ignored/x": 0o644,
        "ignored/kept": 0o644,
        "one.log": 0o644,
        "two.log": 0o644,
    }.items():
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}\n")
        path.chmod(mode)
    (context / "app" / "lib").chmod(0o750)
    (context / "app" / "lib" / "link").symlink_to("a.txt")
    (context / "app" / "lib" / "broken").symlink_to("/nowhere/at/all")
    (context / "app" / "up").symlink_to("lib/deep")
    (context / "empty").mkdir()
    os.mkfifo(context / "app" / "lib" / "fifo", 0o600)
    os.chown(context / "app" / "main", 1000, 1000)
    with tarfile.open(context / "archive.tar.gz", "w:gz") as tar:
        for name, kind in {"in": tarfile.DIRTYPE, "in/file": tarfile.REGTYPE, "in/link": tarfile.SYMTYPE}.items():
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.uid, member.gid = kind, 0o2750 if name == "in" else 0o640, 7, 8
            member.linkname, member.size = ("file", 0) if kind == tarfile.SYMTYPE else ("", 4 * (name == "in/file"))
            tar.addfile(member, io.BytesIO(b"data") if member.size else None)
    (context / ".dockerignore").write_text(
        "# what isn't sent\nignored/*\n!ignored/kept\n**/*.log\n!two.log\nDockerfile\n"
    )


def nothing(_: Path) -> None:
    """A context without files."""


CASES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "configuration": (
        """FROM {base}
MAINTAINER somebody
ARG NUMBER=1 OTHER
ENV A=1 B="two words" C=$A D=${{NUMBER}}x E=${{OTHER:-unset}} F=${{A:+set}}
ENV OLD old form of it
ENV PATH=/more:$PATH
LABEL one=1 "two words"="a b" three='single $A' four="double $A"
WORKDIR /srv
WORKDIR relative/$A
USER www:extra
EXPOSE 80 443/udp 1000/tcp
VOLUME /data ["/no", "list"]
VOLUME ["/one", "/two"]
STOPSIGNAL SIGUSR1
SHELL ["/bin/sh", "-ec"]
ONBUILD RUN true
ONBUILD COPY . /x
HEALTHCHECK --interval=5s --timeout=2s --start-period=1m --retries=4 CMD wget -q localhost || exit 1
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo", "$A"]
""",
        nothing,
    ),
    "an entrypoint ends the command of the base": ('FROM {base}\nENTRYPOINT ["/bin/echo"]\n', nothing),
    "a shell form": ("FROM {base}\nHEALTHCHECK NONE\nCMD echo $HOME && true\n", nothing),
    "copies": (
        """FROM {base}
COPY app /into/place
COPY app/main /into/renamed
COPY app/main app/lib/a.txt /into/directory/
COPY --chown=33:44 --chmod=0711 app/lib/a.txt /owned
COPY --chown=www:extra app/lib /owned-directory
COPY app/lib /made
COPY app/lib /made/deeper/
COPY ["with space", "/json form/x y"]
COPY *.log /logs/
COPY a*/lib/[ab].txt /globbed/
COPY ignored /ignored
COPY ünï /ünï
COPY empty /empty
WORKDIR /work
COPY app/main relative
COPY app/lib/deep ./deep/
COPY . /all
""",
        some_files,
    ),
    "what lies at the destination": (
        """FROM {base}
RUN mkdir -m 0700 /target /target/lib /elsewhere && echo old > /target/main
RUN ln -s /elsewhere /to && ln -s lib /target/up
RUN chown 5:6 /target && ln -s ../../../elsewhere/x /climbing && chmod 1777 /elsewhere
COPY app/lib /target/lib/
COPY app/main /target/main
COPY app/main /to/main
COPY app/main /to/deeper/still/main
COPY app/lib/deep /to/
COPY app/main /climbing/y
""",
        some_files,
    ),
    "archives": (
        """FROM {base}
ADD archive.tar.gz /unpacked
ADD archive.tar.gz /unpacked/again/
COPY archive.tar.gz /copied/
ADD app/lib/a.txt /plain
RUN mkdir -p /there/in && chmod 700 /there/in && chown 9:9 /there/in
ADD archive.tar.gz /there
ADD --chown=1:2 archive.tar.gz /given
""",
        some_files,
    ),
    "runs": (
        """FROM {base}
RUN mkdir -p /a/b/c && echo 1 > /a/b/c/one && echo 2 > /a/two && ln /a/two /a/hard && touch /a/c.file
RUN ln -s two /a/soft
RUN rm -r /a/b && echo new > /a/b && chmod 4711 /a/b && chown 12:34 /a/c.file
RUN rm /a/b && mkdir /a/b && touch /a/b/again && rm /second/layer
RUN rm -r /www && mkdir /www && echo new > /www/page && chmod 2750 /www
RUN mknod /pipe p && chmod 601 /pipe && mv /a/hard /a/moved && mv /a /b
RUN ["/bin/sh", "-c", "umask 077; echo $0 > /said; echo '\\"quoted\\"' >> /said"]
RUN echo one; \\
    # a comment within
    echo continued > /continued
ENV NAME=value
RUN echo "$NAME $HOME $PATH" > /environment; pwd >> /environment; id -u >> /environment
WORKDIR /made/by/workdir
USER www
RUN id > /tmp/id; touch /tmp/mine; pwd >> /tmp/id
USER root
RUN rm -rf /var/* /etc/group && chmod 0 /root
""",
        nothing,
    ),
    "stages": (
        """ARG BASE={base}
ARG VERSION=3
FROM $BASE AS build
ARG VERSION
ARG EXTRA=e
ENV KEPT=$VERSION
RUN mkdir -p /out/d && echo $VERSION$EXTRA > /out/d/file && chmod 640 /out/d/file && chown -R 3:4 /out
RUN ln -s d/file /out/l && ln -s /out/d /outside && echo target > /out/t && ln -s /out/t /link
FROM build AS middle
LABEL stage=middle
RUN echo $KEPT > /out/second
FROM scratch
COPY --from=middle /out /
COPY --from=0 /out/d/file /renamed
COPY --from=build /outside/file /through/a/link
COPY --from=build /link /followed
COPY --from=build --chown=7:7 /out/d /again/
COPY --from=build /out /new
COPY --from=build /out/ /newer/
COPY --from={base} /etc/passwd /etc/
CMD ["/renamed"]
""",
        nothing,
    ),
    "mounts": (
        """FROM {base} AS other
RUN mkdir /d && echo there > /d/f
FROM {base}
RUN --mount=type=bind,from=other,source=/d,target=/m cat /m/f > /got
RUN --mount=type=bind,target=/c cp -r /c/app/lib/deep /deep
""",
        some_files,
    ),
}


@pytest.fixture(scope="module")
def ours(registry: str, busybox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scow]:
    yield from engine_at(tmp_path_factory.mktemp("ours"), True, registry)


class Buildah:
    """buildah with a store of its own: plain directories, no network, nothing that outlives its process."""

    def __init__(self, home: Path) -> None:
        self._home = home
        (home / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        (home / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\nrunroot = "{home}/run"\ngraphroot = "{home}/store"\n'
        )

    def __call__(self, *words: str) -> None:
        self._run("buildah", *words)

    def _run(self, *words: str) -> str:
        own = {"CONTAINERS_STORAGE_CONF": str(self._home / "storage.conf"), "TMPDIR": str(self._home)}
        done = subprocess.run(words, capture_output=True, check=False, env={**os.environ, **own})
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        return done.stdout.decode()

    def build(self, context: Path, archive: Path) -> None:
        policy = ("--signature-policy", str(self._home / "policy.json"))
        isolated = ("--isolation", "chroot", "--network", "host", "--tls-verify=false", "--format", "docker")
        self("bud", *policy, *isolated, "-q", "-t", "theirs", str(context))
        self("push", "-q", *policy, "--format", "v2s2", "theirs", f"docker-archive:{archive}")


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    require("buildah")
    home = tmp_path_factory.mktemp("buildah")
    yield Buildah(home)
    shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("case", CASES)
def test_the_same_image(ours: Scow, buildah: Buildah, registry: str, busybox: str, case: str, tmp_path: Path) -> None:
    dockerfile, fill = CASES[case]
    context = tmp_path / "context"
    context.mkdir()
    fill(context)
    (context / "Dockerfile").write_text(dockerfile.format(base=f"{registry}/library/busybox:latest"))
    buildah.build(context, tmp_path / "theirs.tar")
    ours("build", "-q", "-t", "ours", str(context))
    ours("save", "-o", str(tmp_path / "ours.tar"), "ours")
    config, tree = image_of(tmp_path / "ours.tar")
    their_config, their_tree = image_of(tmp_path / "theirs.tar")
    assert differences(compared(config), compared(their_config)) == ""
    known = OTHERS_MISTAKES.get(case, {})
    assert (
        differences(*({k: v for k, v in listed(each).items() if k not in known} for each in (tree, their_tree))) == ""
    )


RUNS = """FROM {base}
COPY --chown=www --chmod=500 app/main /srv/main
RUN rm -r /second && mkdir /second && echo built > /second/file && ln /second/file /second/hard
ENV GREETING="two words"
WORKDIR /srv
USER www
ENTRYPOINT ["sh", "-c", "echo $GREETING; cat main /second/hard; pwd; id -u; ls /second; echo $0 $@"]
CMD ["default", "words"]
"""
SAID = "two words\ncontent of app/main\nbuilt\n/srv\n33\nfile\nhard\ndefault words\n"


def test_scow_runs_what_others_build(ours: Scow, buildah: Buildah, registry: str, tmp_path: Path) -> None:
    prepared(tmp_path, registry)
    buildah.build(tmp_path / "context", tmp_path / "theirs.tar")
    ours("load", "-i", str(tmp_path / "theirs.tar"))
    assert ours("run", "--rm", "localhost/theirs") == SAID
    # And it is a base like any other.
    (tmp_path / "context" / "Dockerfile").write_text('FROM localhost/theirs\nCMD ["other"]\n')
    image = ours("build", "-q", str(tmp_path / "context")).strip()
    assert ours("run", "--rm", image) == SAID.replace("default words", "other")


def prepared(tmp_path: Path, registry: str) -> None:
    (tmp_path / "context").mkdir()
    some_files(tmp_path / "context")
    (tmp_path / "context" / "Dockerfile").write_text(RUNS.format(base=f"{registry}/library/busybox:latest"))


def compared(config: dict[str, Any]) -> dict[str, str]:
    """What of a configuration must be the same; a setting that says nothing is none."""
    settings = dict(config["config"])
    settings["Labels"] = {k: v for k, v in (settings.get("Labels") or {}).items() if k not in OWN_LABELS}
    # buildah puts a variable that is set again at the end, docker and scow leave it where it was.
    settings["Env"] = sorted(settings["Env"])
    said = {**{name: value for name, value in config.items() if name != "config"}, **settings}
    return {
        name: json.dumps(value, sort_keys=True)
        for name, value in said.items()
        if value and name not in ALLOWED and MEANS_NOTHING.get(name) != value
    }


def listed(tree: dict[str, Entry]) -> dict[str, str]:
    """What of a tree must be the same."""
    return {path: str(entry) for path, entry in tree.items() if path not in OWN_PATHS and path != "/"}


def differences(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """Lines like those of diff: `<` is what scow has, `>` what buildah has."""
    found = []
    for name in sorted({**ours, **theirs}):
        if ours.get(name) != theirs.get(name):
            found += [f"{side} {name}: {said[name]}" for side, said in (("<", ours), (">", theirs)) if name in said]
    return "\n".join(found)
