"""INCLUDE: other files' instructions in its place, with their own positions; cycles, depth and size have ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from scow.api import Invalid
from scow_plugins.builder._stages import Dockerfile, understand

ON = "# scow=include\n"


def fetching(files: Mapping[str, str]) -> Callable[[str], bytes]:
    def fetch(path: str) -> bytes:
        if path not in files:
            raise FileNotFoundError(2, "No such file", path)
        return files[path].encode()

    return fetch


def read(text: str, *, include: bool = False, **files: str) -> Dockerfile:
    return understand(
        text.encode(), "Dockerfile", fetching({k.replace("__", "/"): v for k, v in files.items()}), include=include
    )


def written(dockerfile: Dockerfile) -> list[str]:
    return [f"{each.at.place()} {each.at.text}" for stage in dockerfile.stages for each in (stage.start, *stage.body)]


def test_its_instructions_stand_in_its_place() -> None:
    found = read(
        ON + "ARG A=1\nINCLUDE bases\nRUN one\ninclude ./sub/../sub/more\nRUN last\n",
        bases="# a comment\nFROM scratch AS base\nENV X=1\nFROM base\n",
        sub__more="\n\nRUN <<E\ninner\nE\nINCLUDE sub/deep\n",
        sub__deep="USER me",
    )
    assert written(found) == [
        "bases:2 FROM scratch AS base",
        "bases:3 ENV X=1",
        "bases:4 FROM base",
        "Dockerfile:4 RUN one",
        "sub/more:3 RUN <<E",
        "sub/deep:1 USER me",
        "Dockerfile:6 RUN last",
    ]
    assert [each.at.source.name for each in found.arguments] == ["Dockerfile"]


def test_the_flag_does_the_same_and_a_file_may_come_twice() -> None:
    found = read('FROM scratch\nINCLUDE "a b"\nINCLUDE /a\\ b\n', include=True, **{"a b": "RUN x"})
    assert written(found)[1:] == ["a b:1 RUN x"] * 2


def test_it_is_off_by_default() -> None:
    with pytest.raises(Invalid, match="Dockerfile:2: unknown instruction: INCLUDE") as caught:
        read("FROM scratch\nINCLUDE x\n", x="RUN x")
    assert caught.value.hint is not None
    assert "# scow=include" in caught.value.hint
    # Directives come before anything else.
    with pytest.raises(Invalid, match="unknown instruction"):
        read("FROM scratch\n# scow=include\nINCLUDE x\n", x="RUN x")
    with pytest.raises(Invalid, match="scow has no 'inclusion'"):
        read("# scow=inclusion\nFROM scratch\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("INCLUDE", "INCLUDE requires one argument"),
        ("INCLUDE a b", "INCLUDE requires one argument"),
        ("INCLUDE $A", "doesn't take variables"),
        ("INCLUDE --x a", "unknown flag: --x"),
        ("INCLUDE none", "Dockerfile:3: none is not in the context"),
        ("INCLUDE ..", "requires a file"),
        ("INCLUDE a/", "requires a file"),
        ("INCLUDE bad", "bad:2: unknown instruction: RUM"),
        ("INCLUDE cycle", "cycle:1: cycle includes itself: Dockerfile → cycle → cycle"),
        ("INCLUDE one", "two:1: one includes itself: Dockerfile → one → two → one"),
        ("INCLUDE escape", "escape:1: escape is included: the escape token must be one for all"),
        ("INCLUDE check", "check:1: check is included: check belongs into the first file"),
        ("INCLUDE binary", "binary:1: the file has a zero byte"),
        ("ONBUILD INCLUDE bad", "INCLUDE isn't allowed as an ONBUILD trigger"),
        ("INCLUDE open", "open:1: unterminated heredoc"),
    ],
)
def test_mistakes_are_shown_where_they_are(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(
            ON + "FROM scratch\n" + text + "\n",
            bad="\nRUM x",
            cycle="INCLUDE cycle",
            one="INCLUDE ./two",
            two="INCLUDE x/../one",
            escape="# escape=`\nRUN x",
            check="# check=skip=all\nRUN x",
            binary="a\0b",
            open="RUN <<E\nx",
        )
    assert says in caught.value.message
    assert " | " in caught.value.message


def test_there_are_ends() -> None:
    deep = {f"f{number}": f"INCLUDE f{number + 1}\n" for number in range(50)}
    with pytest.raises(Invalid, match="f9:1: files include each other more than 10 deep"):
        read(ON + "FROM scratch\nINCLUDE f0\n", **deep)
    wide = {f"f{number}": f"INCLUDE f{number + 1}\n" * 9 for number in range(8)} | {"f8": "RUN x"}
    with pytest.raises(Invalid, match="more than 1000 files are included"):
        read(ON + "FROM scratch\nINCLUDE f0\n", **wide)
    with pytest.raises(Invalid, match="larger than 16 MiB"):
        read(ON + "FROM scratch\nINCLUDE f\nINCLUDE f\n", f="# " + "x" * (9 << 20))
    with pytest.raises(Invalid, match="there is no build context to include from"):
        understand((ON + "FROM scratch\nINCLUDE x\n").encode())
