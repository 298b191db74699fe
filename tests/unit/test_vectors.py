"""Tables of right answers: Dockerfiles, words, references to images and to git, patterns of ignore files.

The code of BuildKit, distribution and moby's patternmatcher made them; they lie beside the checkout, in
`../shared/vectors`. Where scow answers otherwise on purpose, a list here says why.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from scow.errors import ScowError
from scow.model.reference import Named, parse_named
from scow_plugins.builder._expand import Expander, ExpandError
from scow_plugins.builder._gitref import GitRef, is_git, parse_git
from scow_plugins.builder._ignore import Ignore, read_patterns
from scow_plugins.builder._instructions import (
    Arg,
    Cmd,
    CommandLine,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from scow_plugins.builder._parse import parse
from scow_plugins.builder._source import Heredoc
from scow_plugins.builder._stages import understand

VECTORS: Final = Path(__file__).parents[3] / "shared" / "vectors"

#: Dockerfiles that BuildKit's parser takes and scow's doesn't: the beginning of the text, and why.
REFUSED: Final = {
    "FROM busybox\nSTOPSIGNAL --boo": "BuildKit forgets the flags of STOPSIGNAL; nothing is accepted and ignored",
    "FROM busybox\nARG --boo": "the same of ARG",
    "FROM busybox\nONBUILD ": "a trigger that is no instruction is refused where it is written, not in the next build",
}
#: Pieces of them.
REFUSED_WITH: Final = {"\\u0000": "no command, path or argument can hold a zero byte (execve(2)): said at once"}
#: Git references that BuildKit reads otherwise: what the input holds, and why.
GIT_OTHERWISE: Final = {
    "github.com/moby/buildkit": "BuildKit adds https:// later, where it decides that this is no local directory",
    "subdir=/": "the directory is kept without its slash",
    "mtime=": "refused by name: all files have the time of the commit already, which is what mtime=commit asks for",
    "fetch-by-commit": "refused by name; a commit that the server doesn't give by its name is found by its branch",
}


def rows(name: str, key: str = "cases") -> list[dict[str, Any]]:
    """A table's rows; none where the tables aren't there."""
    path = VECTORS / f"{name}.json"
    return json.loads(path.read_text())[key] if path.exists() else []


def test_the_tables_are_there() -> None:
    if not VECTORS.exists():
        pytest.skip("the tables don't lie beside this checkout on this machine")
    assert [len(rows(name)) for name in ("dockerfile_parser", "shell_words", "reference_vectors")] == [355, 308, 608]


@pytest.mark.parametrize("row", rows("shell_words"), ids=lambda row: row["input"])
def test_words(row: dict[str, Any]) -> None:
    values = dict(pair.partition("=")[::2] for pair in row["env"])
    expander = Expander(values, row["escape"])
    expand = expander.words if row["kind"] == "words" else expander.word
    if "error" in row["expect"]:
        with pytest.raises(ExpandError):
            expand(row["input"])
        return
    assert expand(row["input"]) == row["expect"]["result"]
    if row["kind"] == "word":
        assert sorted(expander.used - set(values)) == sorted(row["expect"].get("unmatched") or [])


@pytest.mark.parametrize("row", rows("dockerignore_vectors"), ids=lambda row: f"{row['patterns']} {row['path']}")
def test_patterns(row: dict[str, Any]) -> None:
    if "error" in row["expect"]:
        with pytest.raises(ScowError):
            Ignore(row["patterns"])
    else:
        assert Ignore(row["patterns"]).ignores(row["path"]) is row["expect"]["match"]


@pytest.mark.parametrize("row", rows("dockerignore_vectors", "ignorefile"), ids=lambda row: row["src"])
def test_ignore_files(row: dict[str, Any]) -> None:
    assert list(read_patterns(row["content"].encode())) == row["expect"]["patterns"]


REFERENCES: Final = [row for row in rows("reference_vectors") if row["mode"] in ("normalize", "dockerref")]


@pytest.mark.parametrize("row", REFERENCES, ids=lambda row: f"{row['mode']} {row['input'][:60]}")
def test_references(row: dict[str, Any]) -> None:
    """`parse` (without normalising) and `any` (IDs) are read elsewhere in scow: an ID is looked up before a name is."""
    expect = row["expect"]
    if "error" in expect:
        with pytest.raises(ScowError):
            parse_named(row["input"])
        return
    found = parse_named(row["input"])
    assert (found.domain, found.path) == (expect["domain"], expect["path"])
    if row["mode"] == "dockerref" and found.tag and found.digest:
        # A tag beside a digest is kept, to show what was asked for; the digest decides.
        found = Named(found.domain, found.path, None, found.digest)
    assert str(found) == expect["tag_name_only"]
    assert found.familiar.removesuffix(":latest") == expect["familiar_string"].removesuffix(":latest")


@pytest.mark.parametrize("row", rows("gitrefs"), ids=lambda row: row["input"])
def test_git_references(row: dict[str, Any]) -> None:
    text, expect = row["input"], row["expect"]
    if any(part in text for part in GIT_OTHERWISE):
        return
    if not is_git(text):
        assert not expect["ok"]
        return
    if "ref" not in expect:
        with pytest.raises(ScowError):
            parse_git(text)
        return
    ref = expect["ref"]
    assert parse_git(text) == GitRef(
        ref["Remote"],
        ref["Ref"],
        ref["SubDir"],
        ref["Checksum"],
        ref["KeepGitDir"],
        ref["Submodules"] is not False,
    )


@pytest.mark.parametrize("row", rows("dockerfile_parser"), ids=lambda row: row.get("name") or row["text"][:40])
def test_dockerfiles(row: dict[str, Any]) -> None:
    text, expect = row["text"], row["expect"]
    ours = any(text.startswith(start) and "instr_error" not in expect for start in REFUSED)
    if "error" in expect or "instr_error" in expect or ours or any(part in text for part in REFUSED_WITH):
        with pytest.raises(ScowError):
            understand(text.encode())
        return
    file, instructions = parse(text.encode())
    assert file.escape == expect["escape"]
    assert [shown(each) for each in instructions] == [simplified(each) for each in expect["instructions"]]
    assert [[each.name.lower(), each.lines[0], each.lines[-1]] for each in file.statements] == expect["lines"]


def simplified(expected: dict[str, Any]) -> dict[str, Any]:
    """A row's instruction as `shown` shows ours: here-documents without tabs that go, EXPOSE as it is written."""
    found = dict(expected)
    for key in ("contents", "files"):
        if key in found:
            found[key] = [[each["name"], chomped(each)] for each in found[key]]
    if "ports" in found:
        found["ports"] = sorted(found["ports"])
    if found["i"] == "ADD":
        found["keepgit"] = bool(found["keepgit"])
    return found


def chomped(heredoc: dict[str, Any]) -> str:
    lines = heredoc["data"].splitlines(keepends=True)
    return "".join(line.lstrip("\t") for line in lines) if heredoc.get("chomp") else heredoc["data"]


def shown(said: Instruction) -> dict[str, Any]:
    """An instruction of ours in the form of the table."""
    name = said.at.name
    match said:
        case From():
            return {"i": name, "base": said.image, "name": said.name, "platform": said.platform}
        case Label() | Env():
            return {"i": name, "pairs": [list(pair) for pair in said.values]}
        case Arg():
            return {"i": name, "args": [list(pair) for pair in said.values]}
        case Copy():
            return _copy(said)
        case Run():
            more = {"mounts": len(said.mounts), "network": said.network, "security": said.security}
            return {"i": name, "files": _documents(said.heredocs), **_command(said.command), **more}
        case Cmd() | Entrypoint():
            return {"i": name, "files": [], **_command(said.command)}
        case Expose():
            return {"i": name, "ports": sorted(said.ports)}
        case Volume():
            return {"i": name, "volumes": list(said.paths)}
        case Workdir():
            return {"i": name, "path": said.path}
        case User():
            return {"i": name, "user": said.user}
        case Maintainer():
            return {"i": name, "maintainer": said.name}
        case StopSignal():
            return {"i": name, "signal": said.signal}
        case Shell():
            return {"i": name, "words": list(said.words)}
        case OnBuild():
            return {"i": name, "expression": said.text}
        case Healthcheck():
            return _health(said)


def _command(command: CommandLine) -> dict[str, Any]:
    """An empty line for the shell is no word in the table."""
    return {"cmd": [] if command.shell and command.words == ("",) else list(command.words), "shell": command.shell}


def _documents(heredocs: tuple[Heredoc, ...]) -> list[list[str]]:
    return [[each.name, each.content] for each in heredocs]


def _copy(said: Copy) -> dict[str, Any]:
    found = {
        "i": said.at.name,
        "chmod": said.chmod,
        "chown": said.chown,
        "contents": _documents(said.heredocs),
        "dest": said.target,
        "exclude": list(said.exclude),
        "link": said.link,
        "sources": list(said.sources),
    }
    if said.add:
        return found | {"checksum": said.checksum, "keepgit": said.keep_git_dir, "unpack": said.unpack}
    return found | {"from": said.stage, "parents": said.parents}


def _health(said: Healthcheck) -> dict[str, Any]:
    times = [said.interval, said.timeout, said.start_period, said.start_interval, said.retries]
    command = said.command
    test = ["NONE"] if command is None else ["CMD-SHELL" if command.shell else "CMD", *command.words]
    return {"i": "HEALTHCHECK", "test": test, "times": [time or 0 for time in times]}
