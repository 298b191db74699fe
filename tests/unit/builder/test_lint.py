"""Docker's rules, one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from scow.api import Platform
from scow_plugins.builder._lint import lint, violation
from scow_plugins.builder._plan import Options
from scow_plugins.builder._stages import understand

AMD = Platform("linux", "amd64")


def rules(text: str, ignore: bytes = b"") -> list[tuple[str, int]]:
    found = lint(understand(text.encode()), Options(AMD, AMD), ignore, lambda _: {"config": {"Env": ["HOME=/x"]}})
    assert all(each.message and each.shown and each.url.endswith("/") for each in found)
    return [(each.rule, each.line) for each in found]


@pytest.mark.parametrize(
    ("text", "rule", "line"),
    [
        ("FROM a\nrun b\nRUN c\n", "ConsistentInstructionCasing", 2),
        ("FROM a\nRUN b\nRun c\n", "ConsistentInstructionCasing", 3),
        ("from a\nrun b\nRUN c\n", "ConsistentInstructionCasing", 3),
        ("FROM a\nRUN b \\\n\n  c\n", "NoEmptyContinuation", 3),
        ("FROM a AS Name\n", "StageNameCasing", 1),
        ("FROM a as name\n", "FromAsCasing", 1),
        ("FROM a AS b\nFROM c AS b\n", "DuplicateStageName", 2),
        ("FROM a AS scratch\n", "ReservedStageName", 1),
        ("FROM a\nMAINTAINER me\n", "MaintainerDeprecated", 2),
        ("FROM a:$v\n", "UndefinedArgInFrom", 1),
        ("FROM a\nCOPY $x /\n", "UndefinedVar", 2),
        ("FROM a\nENV PAHT=$HOEM\n", "UndefinedVar", 2),
        ("FROM a\nWORKDIR b\n", "WorkdirRelativePath", 2),
        ("FROM a\nCMD b\n", "JSONArgsRecommended", 2),
        ("FROM a\nENTRYPOINT b\n", "JSONArgsRecommended", 2),
        ('FROM a\nCMD ["b"]\nCMD ["c"]\n', "MultipleInstructionsDisallowed", 2),
        ("FROM a\nENV a b\n", "LegacyKeyValueFormat", 2),
        ("FROM a\nLABEL a b\n", "LegacyKeyValueFormat", 2),
        ("FROM --platform=$TARGETPLATFORM a\n", "RedundantTargetPlatform", 1),
        ("FROM --platform=linux/amd64 a\n", "FromPlatformFlagConstDisallowed", 1),
        ("FROM a\nENV MY_PASSWORD=x\n", "SecretsUsedInArgOrEnv", 2),
        ("FROM a\nARG token\n", "SecretsUsedInArgOrEnv", 2),
        ("ARG V\nFROM a:$V\n", "InvalidDefaultArgInFrom", 2),
        ("FROM a\nEXPOSE 80/TCP\n", "ExposeProtoCasing", 2),
        ("FROM a\nEXPOSE 127.0.0.1:80:80\n", "ExposeInvalidFormat", 2),
        ("# check=experimental=all\nFROM a\n# something else\nARG foo=1\n", "InvalidDefinitionDescription", 4),
        ("# check=experimental=all\n# bad\nFROM a AS foo\n", "InvalidDefinitionDescription", 3),
        ("FROM a\n# check=skip=SecretsUsedInArgOrEnv\nENV password=1\nENV token=1\n", "SecretsUsedInArgOrEnv", 4),
        ("FROM --platform=linux/amd64 a AS arm64\n", "FromPlatformFlagConstDisallowed", 1),
        ("# check=experimental=all\n# something else\nARG foo=1\nFROM a\n", "InvalidDefinitionDescription", 3),
    ],
)
def test_rules(text: str, rule: str, line: int) -> None:
    assert (rule, line) in rules(text)


def test_ignored_files() -> None:
    text = "FROM a\nCOPY x.md y /z/\nADD y /z\nCOPY --from=a x.md /z\n"
    assert rules(text, b"*.md\n") == [("CopyIgnoredFile", 2)]


@pytest.mark.parametrize(
    "text",
    [
        'FROM a AS b\nWORKDIR /x\nWORKDIR y\nENV A=b PUBLIC_KEY=k HOME=$HOME\nEXPOSE 80/udp\nCMD ["c"]\n',
        "from a as b\nrun c\n",
        "ARG V=1\nFROM a:$V\nARG W\nRUN echo $anything\nENV X=${Y:-1} Z=$W\n",
        'FROM a\nSHELL ["/bin/x"]\nCMD b\n',
        "FROM a AS b\nWORKDIR /x\nFROM b\nWORKDIR y\n",
        "# check=skip=all\nfrom a\nRUN b\n",
        "# check=skip=JSONArgsRecommended\nFROM a\nCMD b\n",
        "FROM --platform=$BUILDPLATFORM a\n",
        "# something else\nARG foo=1\nFROM a\n",
        "FROM a\n# check=skip=JSONArgsRecommended // a reason\nCMD b\n",
        "FROM a\n# a word\n# check=skip=all\nENV password=1\n",
        "FROM a\n# check=skip=SecretsUsedInArgOrEnv, LegacyKeyValueFormat\nENV password 1\n",
        'FROM a AS b\nSHELL ["/bin/x"]\nFROM b AS c\nFROM c\nCMD b\n',
        "FROM --platform=linux/amd64 scratch AS my_amd64_stage\n",
        "# check=experimental=all\n# foo\nARG foo=1\n# b bb\nARG a=1 b=2\n# x is it\nFROM a AS x\n",
    ],
)
def test_nothing_to_complain_about(text: str) -> None:
    assert rules(text) == []


def test_an_image_that_is_not_here_may_set_anything() -> None:
    found = lint(understand(b"FROM a\nCOPY $JAVA_HOME /x\n"), Options(AMD, AMD))
    assert [each.rule for each in found] == []


def test_an_error_shows_each_place() -> None:
    options = Options(AMD, AMD)
    error = violation(lint(understand(b"# check=error=true\nFROM a as x\nCMD b c\n"), options), "D")
    assert error.message.startswith("lint violation found for rules: FromAsCasing, JSONArgsRecommended\nD:2: FromAs")
    assert "\n    2 | FROM a as x\n      |        ^^\n" in error.message
    assert error.message.endswith("\n    3 | CMD b c\n      |     ^^^")


def test_a_base_that_says_its_shell() -> None:
    def known(name: str) -> Mapping[str, Any]:
        return {"config": {"Shell": ["/bin/x", "-c"]}}

    assert lint(understand(b"FROM a\nCMD b\n"), Options(AMD, AMD), b"", known) == ()
