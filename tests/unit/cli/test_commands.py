"""The other commands against a fake engine; global options; exit codes; what is imported when."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scow.api import ANSWERS, Conflict, Container, Invalid, NotFound, ScowError, Status, Unavailable
from scow.engine.types import EngineInfo, Event, ImageInfo, Output, PluginInfo
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._docs import document
from scow_plugins.cli._flags import UsageError
from scow_plugins.cli._main import load
from scow_plugins.cli._report import report
from scow_plugins.cli._table import COMMANDS, COMMON, GROUPS

NOW = 1_700_000_000.0
Make = Callable[..., Container]
MakeImage = Callable[..., ImageInfo]


def test_ps(scow: Any, container: Make) -> None:
    scow.engine.all = [container(2, "db", status=Status.EXITED, exit_code=1, finished=NOW - 60), container(1, "web")]
    assert scow("ps").out.splitlines() == [
        "CONTAINER ID   IMAGE     COMMAND                  CREATED         STATUS         PORTS     NAMES",
        '111111111111   nginx     "nginx -g \'daemon of…"   2 minutes ago   Up 3 seconds             web',
    ]
    assert scow("ps", "-aq").out == "111111111111\n222222222222\n"
    assert scow("ps", "-lq", "--no-trunc").out == "1" * 64 + "\n"
    assert scow("ps", "-qn", "1").out == "111111111111\n"
    assert scow("container", "ls", "-a", "--format", "{{.Names}}: {{.Status}}").out == (
        "web: Up 3 seconds\ndb: Exited (1) About a minute ago\n"
    )
    assert json.loads(scow("ps", "--format", "json").out)["Names"] == "web"
    assert scow("ps", "--format", r"table {{.Names}}\t{{.ID}}").out == (
        "NAMES     CONTAINER ID\nweb       111111111111\n"
    )


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (["name=we"], ["web"]),
        (["name=^/web$"], ["web"]),
        (["name=^b"], []),
        (["id=11"], ["web"]),
        (["status=exited"], ["db"]),
        (["exited=1"], ["db"]),
        (["exited=0"], []),
        (["label=a"], ["web"]),
        (["label=a=2"], []),
        (["ancestor=nginx"], ["web"]),
        (["ancestor=nginx:latest"], ["web"]),
        (["ancestor=docker.io/library/nginx"], ["web"]),
        (["ancestor=nginx:1"], []),
        (["ancestor=dddd"], ["web"]),
        (["network=bridge", "name=web"], ["web"]),
    ],
)
def test_ps_filters(scow: Any, container: Make, filters: list[str], names: list[str]) -> None:
    scow.engine.all = [
        container(2, "db", status=Status.EXITED, exit_code=1),
        container(1, "web", spec={"labels": (("a", "1"),)}),
    ]
    words = [word for text in filters for word in ("-f", text)]
    assert scow("ps", *words, "--format", "{{.Names}}").out.split() == names


@pytest.mark.parametrize(
    "words",
    [
        ["-f", "x=1"],
        ["-f", "name=("],
        ["--format", "{{.Foo}}"],
        ["-s"],
        ["x"],
        ["-f", "status=bogus"],
        ["-f", "exited=no"],
    ],
)
def test_ps_bad_usage(scow: Any, container: Make, words: list[str]) -> None:
    scow.engine.all = [container()]
    code, _, err = scow("ps", *words)
    assert code == (125 if words == ["-s"] else 1)
    assert err.endswith("See 'scow ps --help'.\n")


def test_images(scow: Any, image: MakeImage) -> None:
    scow.engine.images_ = [image(("docker.io/library/nginx:1.2", "localhost:5000/x:y")), image(())]
    lines = scow("images").out.splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert lines[1].startswith("nginx              1.2       ")
    assert len(lines) == 4
    assert len(scow("images", "nginx").out.splitlines()) == 2
    assert len(scow("image", "ls", "nginx:1.3").out.splitlines()) == 1
    assert len(scow("images", "nginx:1.2").out.splitlines()) == 2
    assert len(scow("images", "-f", "dangling=true", "-q").out.splitlines()) == 1
    assert len(scow("images", "-f", "reference=ngin*", "--digests").out.splitlines()) == 3
    assert scow("images", "-q", "--no-trunc").out.startswith("sha256:")
    assert scow("images", "--format", "{{.Repository}}:{{.Tag}}").out.splitlines()[0] == "nginx:1.2"


def test_logs(scow: Any) -> None:
    scow.engine.logged = [Output("stdout", b"one\nmore\n"), Output("stderr", b"two\n")]
    assert scow("logs", "web") == (0, "one\nmore\n", "two\n")
    assert scow("logs", "-ft", "-n", "5", "--since", "10m", "web") == (0, "one\nmore\n", "two\n")
    how = {"follow": True, "tail": 5, "since": NOW - 600, "until": None, "timestamps": True}
    assert scow.engine.calls[-1] == ("log_output", "web", how)
    assert scow("logs", "-n", "x", "web").code == 1
    assert scow("logs", "--since", "x", "web").code == 1


def test_inspect(scow: Any, container: Make, image: MakeImage) -> None:
    scow.engine.all = [container(addresses=("172.17.0.2/16",))]
    scow.engine.images_ = [image(("nginx",))]
    code, out, err = scow("inspect", "web", "nginx", "nothing")
    assert (code, err) == (1, "scow: no such object: nothing\nhint: scow ps -a; scow images\n")
    assert [sorted(each)[0] for each in json.loads(out)] == ["Args", "Architecture"]
    assert scow("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "web").out == "172.17.0.2\n"
    assert scow("inspect", "-f", "{{json .State.Running}} {{.Name}}", "web").out == "true /web\n"
    assert scow("inspect", "--type", "image", "web").code == 1
    assert scow("container", "inspect", "nginx").code == 1
    assert scow("image", "inspect", "nginx", "-f", "{{.Id}}").out.startswith("sha256:")
    assert scow("inspect", "--type", "volume", "x").code == 1
    assert json.loads(scow("inspect", "nothing").out) == []


def test_events(scow: Any) -> None:
    facts = {"name": "web", "image": "nginx", "app": "x"}
    scow.engine.events_ = [
        Event(NOW, "container", "start", "1" * 64, facts),
        Event(NOW, "stage", "mount", "1" * 64, {"plugin": "overlay", "ended": 1.5}),
        Event(NOW, "image", "pull", "nginx:latest", {}),
    ]
    lines = scow("events").out.splitlines()
    assert lines[0].endswith(f" container start {'1' * 64} (app=x, image=nginx, name=web)")
    assert lines[1].endswith(" image pull nginx:latest")
    (stage,) = scow("events", "-f", "type=stage").out.splitlines()
    assert stage.endswith(f" stage mount {'1' * 64} (ended=1.5, plugin=overlay)")
    shape = json.loads(scow("events", "--format", "json", "-f", "type=container").out)
    assert shape["Actor"] == {"ID": "1" * 64, "Attributes": facts}
    assert scow("events", "--format", "{{.Action}} {{.Actor.Attributes.plugin}}", "-f", "plugin=overlay").out == (
        "mount overlay\n"
    )
    for text, count in (
        ("container=web", 1),
        ("label=app=x", 1),
        ("label=app=y", 0),
        ("container=11", 1),
        ("event=pull", 1),
        ("image=nginx", 2),
    ):
        assert len(scow("events", "-f", text).out.splitlines()) == count
    scow("events", "--since", "10m", "--until", "0s")
    assert scow.engine.calls[-1] == ("events", {"since": NOW - 600, "until": NOW, "follow": False})


def test_several(scow: Any) -> None:
    scow.engine.errors["b"] = NotFound("no such container: b")
    assert scow("stop", "-t", "3", "a", "b", "c") == (1, "a\nc\n", "scow: no such container: b\n")
    assert ("stop", "a", 3.0) in scow.engine.calls
    assert scow("stop", "-t", "-3", "a").code == 125
    assert scow("kill", "-s", "USR1", "a").out == "a\n"
    assert scow.engine.calls[-1] == ("kill", "a", "USR1")
    scow("kill", "-s", "9", "a")
    assert scow.engine.calls[-1] == ("kill", "a", 9)
    assert scow("rm", "a", "b").code == 1
    assert scow("rm", "-fv", "b", "a") == (0, "a\n", "scow: no such container: b\n")
    assert ("remove", "a", True) in scow.engine.calls
    assert scow("wait", "a", "c").out == "7\n7\n"


def test_pull(scow: Any, image: MakeImage) -> None:
    scow.engine.images_ = [image(("docker.io/library/nginx:latest",))]
    digest = scow.engine.images_[0].manifest_digest
    assert scow("pull", "nginx").out.splitlines() == [
        "Using default tag: latest",
        f"Digest: {digest}",
        "Status: Downloaded newer image for nginx:latest",
        "docker.io/library/nginx:latest",
    ]
    assert scow("pull", "-q", "--platform", "linux/arm64", "nginx:1").out == "docker.io/library/nginx:1\n"
    assert "is up to date" in scow("pull", "docker.io/library/nginx:latest").out
    assert scow("pull", "-a", "-q", "nginx").out == "docker.io/library/nginx\n"
    assert [call[1] for call in scow.engine.calls[-2:]] == ["nginx:1", "nginx:2"]
    assert scow("pull", "-a", "nginx:1").err.startswith("scow: tag can't be used with --all-tags/-a\n")
    assert scow("pull", "oci:/some/where:tag").out.endswith("\noci:/some/where:tag\n")
    assert scow("pull", "NGINX").code == 2


def test_plugins(scow: Any) -> None:
    scow.engine.news = [
        PluginInfo("overlay", ("unpack", "mount"), "scow", "1", None, ("mount",)),
        PluginInfo("odd", ("exec",), "odd", "2", "no overlayfs", ()),
    ]
    lines = scow("plugins").out.splitlines()
    assert lines[0].split() == ["NAME", "STAGES", "DISTRIBUTION", "VERSION", "WORKS", "PICKED", "WHY", "NOT"]
    assert lines[2].split() == ["odd", "exec", "odd", "2", "no", "no", "overlayfs"]


def test_info(scow: Any) -> None:
    scow.engine.news = [
        EngineInfo("1", "/r", "/s", 3, 1, 0, 2, 4, "overlay", "bridge", "namespaces", "6.1",
                   "x86_64", "hybrid", 2, 8 << 30, ("w",))
    ]  # fmt: skip
    code, out, err = scow("info")
    assert (code, err) == (0, "WARNING: w\n")
    assert "Total Memory: 8GiB" in out
    assert scow("system", "info", "-f", "{{.Driver}} {{.ContainersRunning}}").out == "overlay 1\n"
    assert json.loads(scow("info", "-f", "json").out)["Images"] == 4


def test_version(scow: Any) -> None:
    from scow import __version__

    assert f"Version:         {__version__}" in scow("version").out
    assert scow("version", "-f", "{{.Server.Version}}").out == f"{__version__}\n"
    assert scow("-v").out == f"scow version {__version__}\n"


def test_global_options(scow: Any) -> None:
    scow.environ.update(SCOW_ROOT="/a", SCOW_RUN="/b")
    scow("--run", "x", "--log-level", "debug", "--log-format=json", "--trace", "/t", "--config", "/c", "ps")
    assert scow.engine.settings == {
        "root": Path("/a"),
        "run": Path(os.path.abspath("x")),
        "config": Path("/c"),
        "trace": Path("/t"),
        "log_level": "debug",
        "log_format": "json",
    }


def test_global_options_behind_a_command(scow: Any) -> None:
    scow(
        "--log-level", "info", "--trace", "/a", "ps", "--trace", "/t", "--log-level=debug", "--log-format", "json", "-a"
    )
    wanted = {"trace": Path("/t"), "log_level": "debug", "log_format": "json"}
    assert wanted.items() <= scow.engine.settings.items()
    scow("--trace", "/a", "ps")
    assert scow.engine.settings["trace"] == Path("/a")
    assert "unknown flag: --root" in scow("ps", "--root", "/x").err


def test_helps(scow: Any) -> None:
    for words in ([], ["--help"], ["-h"]):
        code, out, _ = scow(*words)
        assert code == 0
        assert out.startswith("Usage:  scow [OPTIONS] COMMAND\n")
        assert all(f"  {name} " in out for name in COMMANDS)
    assert "Manage containers" in scow("container").out
    assert scow("container", "run", "--help").out.startswith("Usage:  scow container run [OPTIONS] IMAGE")
    for name in COMMANDS:
        assert scow(name, "--help").out.startswith(f"Usage:  scow {name}")
    assert set(COMMON) <= set(COMMANDS)
    assert {target for group in GROUPS.values() for target in group.commands.values()} <= set(COMMANDS)


@pytest.mark.parametrize(
    ("words", "code", "err"),
    [
        (["plugin"], 1, "scow: unknown command: scow plugin\nhint: did you mean scow plugins?\nSee 'scow --help'.\n"),
        (["--foo", "ps"], 125, "scow: unknown flag: --foo\nSee 'scow --help'.\n"),
        (["container", "foo"], 1, "scow: unknown command: scow container foo\nSee 'scow container --help'.\n"),
        (["ps", "--foo"], 125, "scow: unknown flag: --foo\nSee 'scow ps --help'.\n"),
        (["rm"], 1, "scow: this command needs at least 1 argument\nSee 'scow rm --help'.\n"),
        (["run"], 1, "scow: this command needs at least 1 argument\nSee 'scow run --help'.\n"),
        (
            ["ps", "--filtre", "x"],
            125,
            "scow: unknown flag: --filtre\nhint: did you mean --filter?\nSee 'scow ps --help'.\n",
        ),
        (
            ["run", "--nmae", "x"],
            125,
            "scow: unknown flag: --nmae\nhint: did you mean --name?\nSee 'scow run --help'.\n",
        ),
        (["exec", "--bogus"], 125, "scow: unknown flag: --bogus\nSee 'scow exec --help'.\n"),
    ],
)
def test_bad_words(scow: Any, words: list[str], code: int, err: str) -> None:
    """The exit codes of docker 28.2: 125 for flags, 1 for too few words and unknown commands."""
    assert scow(*words) == (code, "", err)


@pytest.mark.parametrize("kind", list(ScowError.__subclasses__()))
def test_every_kind_has_its_exit_codes(kind: type[ScowError], capfd: pytest.CaptureFixture[str]) -> None:
    assert report(Cli(), kind("m"), runs=False) == ANSWERS[kind.kind].exit
    assert report(Cli(), kind("m"), runs=True) == ANSWERS[kind.kind].run_exit
    assert capfd.readouterr().err.startswith("scow: m\n")


def test_groups_of_errors(capfd: pytest.CaptureFixture[str]) -> None:
    group = BaseExceptionGroup("", [Unavailable("a"), BaseExceptionGroup("", [Unavailable("a"), Conflict("b")])])
    assert report(Cli(), group, runs=False) == 1
    assert capfd.readouterr().err == "scow: a\nscow: b\n"
    assert report(Cli(), BaseExceptionGroup("", [KeyboardInterrupt(), Invalid("x")]), runs=False) == 130
    assert report(Cli(), UsageError("x"), runs=True) == 125
    assert capfd.readouterr().err == "scow: x\nSee 'scow --help'.\n"


def test_interrupted(scow: Any) -> None:
    scow.engine.errors["containers"] = KeyboardInterrupt()
    assert scow("ps") == (130, "", "")


def test_the_page_is_what_the_commands_say() -> None:
    page = Path(__file__).parents[3] / "docs" / "cli.md"
    assert page.read_text() == document(), "python -m scow_plugins.cli._docs docs/cli.md"


def test_every_command_keeps_the_contract() -> None:
    for name in COMMANDS:
        module = load(name)
        assert module.__doc__
        assert callable(module.main)
        assert not set(module.COMMAND.refused) & {f"--{flag.name}" for flag in module.COMMAND.flags}
        shorts = [flag.short for flag in module.COMMAND.flags if flag.short]
        assert len(shorts) == len(set(shorts))


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["version"], ["run", "--foo"], ["ps", "--foo"]])
def test_what_needs_no_engine_imports_none(words: list[str]) -> None:
    code = (
        "import sys, os; from scow_plugins.cli import main; main(sys.argv[1:]);"
        "heavy = {'trio', 'structlog', 'msgspec', 'pluggy', 'asyncio', 'dataclasses', 'importlib.metadata'};"
        "bad = heavy & set(sys.modules);"
        "os.write(2, b'IMPORTED ' + repr(sorted(bad)).encode())"
    )
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-S", "-c", code, *words], capture_output=True, env=environ, check=False)
    assert done.stderr.endswith(b"IMPORTED []")


def test_pause_and_restart(scow: Any) -> None:
    assert scow("pause", "a", "b").out == "a\nb\n"
    assert scow("unpause", "a").out == "a\n"
    assert {("pause", "a"), ("pause", "b")} <= set(scow.engine.calls)  # at once, in any order
    assert scow.engine.calls[-1] == ("unpause", "a")
    assert scow("restart", "-t", "2", "a").out == "a\n"
    assert scow.engine.calls[-2:] == [("stop", "a", 2.0), ("start", "a")]
    assert scow("restart", "-t", "-1", "a").code == 125
