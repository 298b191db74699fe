"""What a context leaves out."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Invalid
from scow_plugins.builder._ignore import Ignore, _parts, matcher, read_patterns
from scow_plugins.builder._wild import Wild


def _ignores(text: str, path: str) -> bool:
    return Ignore(read_patterns(text.encode())).ignores(path)


@pytest.mark.parametrize(
    ("patterns", "path", "ignored"),
    [
        ("a", "a", True),
        ("a", "a/b", True),
        ("a", "b/a", False),
        ("/a/", "a", True),
        ("*/a", "b/a", True),
        ("*/a", "c/b/a", False),
        ("**/a", "a", True),
        ("**/a", "c/b/a", True),
        ("a/**", "a", False),
        ("a/**", "a/b/c", True),
        ("**", "x/y", True),
        ("*.md\n!README.md", "README.md", False),
        ("*.md\n!README.md", "x.md", True),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", True),
        ("a\n!a/b", "a/b", False),
        ("a\n!a/b", "a/c", True),
        ("te?t", "test", True),
        ("te?t", "te/t", False),
        ("[a-c]x", "bx", True),
        ("[^a-c]x", "bx", False),
        ("\\*", "*", True),
        ("\\*", "a", False),
        ("# a\na", "a", True),
        ("  a  ", "a", True),
        ("./a", "a", True),
        ("a/../b", "b", True),
        ("**/*.go", "x/y/z.go", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a.b", "axb", False),
        ("**/node_modules", "x/node_modules/y", True),
        ("**.pyc", "x.pyc", True),
        ("**.pyc", "a/b/x.pyc", True),
        ("**.pyc", "a/x.py", False),
        ("**/x", "ax", False),
        ("a\u2028b", "a\u2028b", True),
        ("a\x0bb\nc", "a\x0bb", True),
        ("", "a", False),
        (".", "a", False),
    ],
)
def test_patterns(patterns: str, path: str, ignored: bool) -> None:
    assert _ignores(patterns, path) == ignored


def test_a_byte_order_mark_is_no_pattern() -> None:
    assert read_patterns(b"\xef\xbb\xbfa\r\n# c\n\n!/b/\n") == ("a", "!b")


@pytest.mark.parametrize("pattern", ["[a", "a\\", "[b-a]", "!"])
def test_patterns_that_are_none(pattern: str) -> None:
    with pytest.raises(Invalid):
        Ignore([pattern])


def test_trees_that_may_hold_something_are_looked_at() -> None:
    assert Ignore(["a"]).skips_tree("a")
    assert not Ignore(["a", "!a/b"]).skips_tree("a")
    assert Ignore(["a", "!c/b"]).skips_tree("a")
    assert not Ignore(["a", "!**/b"]).skips_tree("a")


_PATHS = st.lists(st.sampled_from(["a", "b", "ab", "x.go"]), min_size=1, max_size=4).map("/".join)
_PATTERNS = st.lists(st.sampled_from(["a", "!a", "*", "**/b", "!**/b", "a/*", "!a/b", "*.go", "a*"]), max_size=5)


@given(_PATTERNS, _PATHS)
def test_nothing_is_taken_back_within_a_tree_that_is_skipped(patterns: list[str], path: str) -> None:
    ignore = Ignore(patterns)
    for at, char in enumerate(path):
        parent = path[:at]
        if char == "/" and ignore.ignores(parent) and ignore.skips_tree(parent):
            assert ignore.ignores(path)


_PIECES = st.lists(st.sampled_from(["a", "b", "*", "**", "**/", "/", "?", "[ab]", "[^a]", "[.-a]", "***"]), max_size=9)


@given(_PIECES.map("".join), st.text("ab/.", max_size=9))
def test_many_wildcards_mean_the_same_as_few(pattern: str, path: str) -> None:
    parts = _parts(pattern)
    expected = re.fullmatch("(?s:" + "".join(text for _, text in parts) + ")", path)
    wild = Wild([(kind, re.compile(text, re.DOTALL).fullmatch) for kind, text in parts])
    assert wild.matches(path) == (expected is not None)


@pytest.mark.parametrize(
    "pattern", ["a*" * 30 + "b", "**/a" * 20 + "/b", "*?" * 40 + "b", "**a" * 25 + "b", "*" * 90 + "b"]
)
@pytest.mark.parametrize("path", ["a" * 250, "a/" * 1000 + "a"])
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    began = time.process_time()
    assert not matcher(pattern)(path)
    assert not Ignore([pattern, "!" + pattern]).ignores(path[:250])
    assert time.process_time() - began < 2
