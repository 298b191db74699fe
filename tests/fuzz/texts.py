"""Texts: names of images, Dockerfiles, ignore files, git references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio
from tests.fuzz.mutate import Mutator
from tests.fuzz.target import Finding, Target, check_error

from scow.api import Digest, Located, Platform, ScowError, parse_named, parse_reference
from scow_plugins.builder._gitref import is_git, parse_git, pick
from scow_plugins.builder._ignore import Ignore, read_patterns
from scow_plugins.builder._instructions import Instruction
from scow_plugins.builder._lint import lint
from scow_plugins.builder._plan import Options, make_plan
from scow_plugins.builder._stages import understand
from scow_plugins.layout._place import parse_place

_AMD: Final = Platform("linux", "amd64")
_PATHS: Final = ("a", "a/b.go", "src/deep/er/x.md", ".git/config", "a" * 60, "a/" * 20 + "b")

_DOCKERFILES: Final = (
    b"# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=all;error=true\nFROM x AS a\nRUN a `\n  b\n",
    b"ARG V=1\nFROM --platform=$BUILDPLATFORM x:${V:-2} AS base\nARG V\nENV A=b C=${V:+d} E='f g'\nWORKDIR /w\n"
    b"COPY --from=base --chown=1:2 --chmod=644 a b /c/\nADD https://example.org/x /x\nFROM base\nCOPY --from=0 . .\n",
    b"FROM x\nRUN --mount=type=cache,target=/c,id=i --mount=type=secret,id=s --network=none <<EOF cat\nhi $X\nEOF\n"
    b"COPY <<-'ONE' <<TWO /d/\n\tone\n\tONE\ntwo\nTWO\nHEALTHCHECK --interval=5s --retries=3 CMD [\"a\", \"b\"]\n",
    b"FROM scratch\nLABEL a=b \"c d\"='e'\nEXPOSE 80/tcp 1000-1002\nVOLUME [\"/v\"]\nSHELL [\"/bin/sh\", \"-c\"]\n"
    b"STOPSIGNAL SIGTERM\nUSER 1:1\nONBUILD RUN x\nENTRYPOINT [\"e\"]\nCMD c ${A%%x*} ${B/a/b} $${C\n",
)  # fmt: skip
_DOCKER_WORDS: Final = (
    b"\nFROM x\n", b"\nARG ", b"\nENV ", b"\nRUN ", b"\nCOPY ", b"\nADD ", b"--from=", b"--mount=type=bind,", b"\\\n",
    b"`\n", b"<<EOF\n", b"${", b"}", b":-", b"##", b"%%", b"[\"", b"\"]", b"'", b"ONBUILD ", b"$A", b"\xef\xbb\xbf",
    b"\r\n", b"*" * 40,
)  # fmt: skip


def reference(data: bytes, place: Path) -> str:
    """What a user, a Dockerfile or an archive calls an image."""
    text = data.decode(errors="surrogateescape")
    kinds = []
    for parse in (_named, _located, Platform.parse, Digest.parse, _git):
        try:
            kinds.append(str(parse(text))[:3])
        except ScowError as error:
            check_error(error)
            kinds.append(error.message[:12])
    return " ".join(kinds)


def _named(text: str) -> object:
    named = parse_named(text)
    if parse_named(str(named)) != named or parse_named(named.familiar) != named:
        raise Finding(f"{named} is not what it is read as")
    return type(named).__name__


def _located(text: str) -> object:
    found = parse_reference(text, ("oci", "docker-archive", "host"))
    return parse_place(found).position if isinstance(found, Located) and found.transport != "host" else "named"


def _git(text: str) -> object:
    return parse_git(text).ref[:1] if is_git(text) else "no"


def listing(data: bytes, place: Path) -> str:
    """What `git ls-remote` prints of somebody's repository."""
    return str(pick(data.decode(errors="surrogateescape"), "main")[1])


def dockerfile(data: bytes, place: Path) -> str:
    """Read, planned, and complained about."""
    understood = understand(data)
    options = Options(_AMD, _AMD, build_args={"V": "3", "HTTP_PROXY": "p"})
    lint(understood, options, data)
    plan = trio.run(make_plan, understood, options, _base)
    plan.as_data()
    return f"{len(plan.stages)} {len(plan.stages[plan.target].steps)}"


async def _base(name: str, platform: Platform, said: Instruction) -> Mapping[str, Any]:
    return {"config": {"Env": ["PATH=/bin"], "OnBuild": ["RUN later $A"]}}


def ignore(data: bytes, place: Path) -> str:
    """Patterns, asked for paths that make a careless matcher take years."""
    patterns = Ignore(read_patterns(data))
    return "".join(str(int(patterns.ignores(path) or patterns.skips_tree(path))) for path in _PATHS)


TARGETS: Final = (
    Target(
        "reference",
        (
            b"nginx",
            b"Example.org:5000/a/b_c:tag@sha256:" + b"ab" * 32,
            b"oci:/a/b:@3",
            b"docker-archive:x.tar:y:1",
            b"[::1]:5000/a",
            b"linux/arm64/v8",
            b"https://u:p@example.org/r.git?ref=a#main:sub",
            b"git@github.com:o/r.git#v1",
        ),
        Mutator.data,
        reference,
        (b"/", b":", b"@", b"sha256:", b"..", b"__", b"git://", b"#", b"?subdir=", b"host:", b"a" * 260),
    ),
    Target("listing", (b"ab" * 20 + b"\trefs/heads/main\n" + b"cd" * 20 + b"\tHEAD\n",), Mutator.data, listing),
    Target("dockerfile", _DOCKERFILES, Mutator.data, dockerfile, _DOCKER_WORDS),
    Target(
        "ignore",
        (b"# c\n*.go\n!a/b.go\n**/x\nsrc/**\n[a-c]?\n\\*\n", b"\xef\xbb\xbf/abs\n./x/../y\n[^a]*\n"),
        Mutator.data,
        ignore,
        (b"**/", b"*a", b"[^", b"]", b"\\", b"!", b"a*" * 30, b"**/" * 20, b"?*", b"\n", b"[a-"),
    ),
)
