"""Variables, quotes and escapes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.builder._expand import Expander, ExpandError

VALUES = {"a": "123", "empty": "", "path": "/x/y.tar.gz", "blank": "p q"}


@pytest.mark.parametrize(
    ("text", "gives"),
    [
        ("$a", "123"),
        ("${a}b", "123b"),
        ("$ab", ""),
        ("$a.b", "123.b"),
        ("$", "$"),
        ("a$$b", "ab"),
        ("$-$!$?$#$@$*|", "|"),
        ("$1x$12x", "xx"),
        ("$é.", "."),
        ("a$", "a$"),
        ("$.", "$."),
        ("\\$a", "$a"),
        ("'$a'", "$a"),
        ('"$a b"', "123 b"),
        ('"\\$a\\x"', "$a\\x"),
        ("\\x", "x"),
        ("x\\", "x"),
        ("${no:-w}", "w"),
        ("${no-w}", "w"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${a:-w}", "123"),
        ("${a:+w}", "w"),
        ("${no:+w}", ""),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${a:?oops}", "123"),
        ("${no:-$a}", "123"),
        ("${no:-${no2:-deep}}", "deep"),
        ('${no:-"a b"}', "a b"),
        ("${path#*/}", "x/y.tar.gz"),
        ("${path##*/}", "y.tar.gz"),
        ("${path%.*}", "/x/y.tar"),
        ("${path%%.*}", "/x/y"),
        ("${path%.gz}", "/x/y.tar"),
        ('${path%".gz"}', "/x/y.tar"),
        ("${path#'/x'}", "/y.tar.gz"),
        ("${path/x/z}", "/z/y.tar.gz"),
        ("${path//\\//\\/}", "\\/x\\/y.tar.gz"),
        ("${path//\\//_}", "_x_y.tar.gz"),
        ("${a//?/z}", "zzz"),
        ("${a/2/}", "13"),
        ("${a//*/z}", "z"),
        ("${empty//*/z}", "z"),
        ("${a//2*/z}", "1z"),
    ],
)
def test_words(text: str, gives: str) -> None:
    assert Expander(VALUES).word(text) == gives


def test_another_escape() -> None:
    assert Expander(VALUES, "`").word("`$a\\$a") == "$a\\123"


def test_words_are_split_at_blanks_that_are_not_quoted() -> None:
    assert Expander(VALUES).words('$blank "$blank" a\\ b') == ["p", "q", "p q", "a b"]


def test_content_keeps_its_quotes_but_no_escapes() -> None:
    """As BuildKit's own frontend: `<<'EOF'` is for those who want them."""
    assert Expander(VALUES).content("\"$a\" '$a' \\$a \\x \\\\n\\\nend") == "\"123\" '123' $a x \\n\nend"
    assert Expander(VALUES, "`").content("`$a \\$a") == "`123 $a"


def test_what_is_missing_is_noted() -> None:
    expander = Expander(VALUES)
    expander.word("$a $x ${y:-1} ${z}")
    assert expander.missing == {"x": 3, "z": 14}
    assert expander.used == {"a", "x", "y", "z"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${a", "missing '}'"),
        ("${a:-x", "missing '}'"),
        ("${}", "bad substitution"),
        ("${a:x}", "unsupported modifier"),
        ("'a", "single quote is not closed"),
        ('"a', "double quote is not closed"),
        ("${a/2}", r"missing '/' in \${}"),
        ("${path%\\.gz}", r"invalid escape '\\\.'"),
        ("${no:?it is missing}", "no: it is missing"),
        ("${empty:?}", "empty: not allowed to be empty"),
        ("${no?}", "no: not allowed to be unset"),
        ("${a:-" * 60 + "}" * 60, "nested too deeply"),
    ],
)
def test_mistakes(text: str, says: str) -> None:
    with pytest.raises(ExpandError, match=says):
        Expander(VALUES).word(text)


@given(st.text(alphabet="$a{}:-+?#%/\\'\" x*", max_size=30))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    with contextlib.suppress(ExpandError):
        Expander(VALUES).word(text)
    with contextlib.suppress(ExpandError):
        Expander(VALUES).words(text)


@given(st.text(alphabet="abc/.-_ ", max_size=30))
def test_plain_text_stays(text: str) -> None:
    assert Expander(VALUES).word(text) == text
