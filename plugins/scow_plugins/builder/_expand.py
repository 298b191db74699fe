"""Variables and quotes as the Dockerfile has them: a subset of the shell's own (dockerfile reference, "Environment
replacement"). Pure: text and a mapping in, text out.

    $v ${v} ${v:-w} ${v-w} ${v:+w} ${v+w} ${v:?w} ${v?w} ${v#p} ${v##p} ${v%p} ${v%%p} ${v/p/w} ${v//p/w}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: A name, a position, or one of the shell's own, which have no value here.
_NAME: Final = re.compile(r"[^\W\d]\w*|[0-9]+|[@*#?$!-]")
_BLANK: Final = " \t\r\n\v\f"
#: Words within words within words: a bound for hostile files.
_DEPTH: Final = 40


class ExpandError(Exception):
    """What is wrong, and where in the text."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message = message
        self.at = at


class Expander:
    """Replaces variables. `used` gathers the names that were looked up, `missing` those without a value."""

    def __init__(self, values: Mapping[str, str], escape: str = "\\", *, raw_quotes: bool = False) -> None:
        self._values = values
        self._escape = escape
        self._raw = raw_quotes
        self.used: set[str] = set()
        self.missing: dict[str, int] = {}

    def word(self, text: str) -> str:
        """One word: variables replaced, quotes and escapes taken away. Raises ExpandError."""
        return _Reader(self, text).until("")

    def words(self, text: str) -> list[str]:
        """Several words: split at blanks, those of variables too, but not at quoted ones. Raises ExpandError."""
        return _Reader(self, text).split()

    def content(self, text: str) -> str:
        """A here-document's content: variables replaced, quotes are ordinary characters. Raises ExpandError.

        A backslash escapes any character and goes, whatever the file's escape is: so does BuildKit's frontend.
        """
        plain = Expander(self._values)
        plain.used, plain.missing = self.used, self.missing
        return _Reader(plain, text, quotes=False).until("")

    def lookup(self, name: str, at: int, *, guarded: bool = False) -> str | None:
        """A variable's value; one that is missing is noted unless the text says what to do then."""
        self.used.add(name)
        value = self._values.get(name)
        if value is None and not guarded:
            self.missing.setdefault(name, at)
        return value

    @property
    def escape(self) -> str:
        return self._escape

    @property
    def raw(self) -> bool:
        return self._raw


class _Reader:
    def __init__(
        self,
        expander: Expander,
        text: str,
        *,
        quotes: bool = True,
        at: int = 0,
        depth: int = 0,
        keeps_escapes: bool = False,
    ) -> None:
        self.expander = expander
        self.text = text
        self.at = at
        self.quotes = quotes
        self.depth = depth
        self.keeps_escapes = keeps_escapes or expander.raw
        self._words: list[str] = []
        self._open = False
        self._splitting = False

    def split(self) -> list[str]:
        self._splitting = True
        self.until("")
        return self._words

    def until(self, stop: str) -> str:
        """Read up to one of the characters `stop` (not taken), or to the end."""
        out: list[str] = []
        escape = self.expander.escape
        while self.at < len(self.text) and self.text[self.at] not in stop:
            char = self.text[self.at]
            if self.quotes and char == "'":
                self._put(out, self._single())
            elif self.quotes and char == '"':
                self._put(out, self._double())
            elif char == "$":
                self._put_free(out, self._dollar())
            elif char == escape:
                self._put(out, self._escaped())
            else:
                self.at += 1
                self._put_free(out, char)
        return "".join(out)

    def _put(self, out: list[str], text: str) -> None:
        """Text that stays in its word, blanks and all."""
        out.append(text)
        if self._splitting:
            if not self._open:
                self._words.append("")
                self._open = True
            self._words[-1] += text

    def _put_free(self, out: list[str], text: str) -> None:
        """Text that ends a word where it has a blank."""
        if not self._splitting:
            out.append(text)
            return
        for char in text:
            if char in _BLANK:
                self._open = False
            else:
                self._put(out, char)

    def _escaped(self) -> str:
        escape, start = self.expander.escape, self.at
        self.at += 1
        if self.at >= len(self.text):
            return escape if self.keeps_escapes else ""
        char = self.text[self.at]
        self.at += 1
        return self.text[start : self.at] if self.keeps_escapes else char

    def _single(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise ExpandError("a single quote is not closed", self.at)
        start, self.at = self.at, end + 1
        return self.text[start : end + 1] if self.expander.raw else self.text[start + 1 : end]

    def _double(self) -> str:
        start, escape, raw = self.at, self.expander.escape, self.expander.raw
        out = ['"'] if raw else []
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return "".join([*out, '"'] if raw else out)
            if char == "$":
                out.append(self._dollar())
                continue
            self.at += 1
            if char == escape and self.at < len(self.text):
                after = self.text[self.at]
                self.at += 1
                # Within double quotes, it escapes only what would mean something there.
                out.append(after if after in ('"', "$", escape) and not self.keeps_escapes else char + after)
            else:
                out.append(char)
        raise ExpandError("a double quote is not closed", start)

    def _dollar(self) -> str:
        start = self.at
        self.at += 1
        if self.text[self.at : self.at + 1] == "{":
            if self.depth > _DEPTH:
                raise ExpandError("variables are nested too deeply", start)
            return self._braces(start)
        match = _NAME.match(self.text, self.at)
        if match is None:
            return "$"
        self.at = match.end()
        return self.expander.lookup(match[0], start) or ""

    def _braces(self, start: int) -> str:
        self.at += 1
        match = _NAME.match(self.text, self.at)
        if match is None:
            raise ExpandError("bad substitution: ${ without a name", start)
        name, self.at = match[0], match.end()
        rest = self.text[self.at :]
        if not rest:
            raise ExpandError("syntax error: missing '}'", start)
        if rest[0] == "}":
            self.at += 1
            return self.expander.lookup(name, start) or ""
        if rest[0] in "#%/":
            return self._pattern(name, rest, start)
        empty_counts = rest[0] == ":"
        operator = rest[1:2] if empty_counts else rest[0]
        if operator not in ("-", "+", "?") or not operator:
            raise ExpandError(f"unsupported modifier {rest[:2]!r} in substitution", self.at)
        self.at += 2 if empty_counts else 1
        word = self._inner("}", start)
        self.at += 1
        value = self.expander.lookup(name, start, guarded=True)
        there = value is not None and not (empty_counts and value == "")
        if operator == "-":
            return value or "" if there else word
        if operator == "+":
            return word if there else ""
        if not there:
            raise ExpandError(f"{name}: {word or 'not allowed to be ' + ('empty' if value == '' else 'unset')}", start)
        return value or ""

    def _inner(self, stop: str, start: int, *, keeps_escapes: bool = False, missing: str = "'}'") -> str:
        """A word within the braces, up to `stop`."""
        reader = _Reader(
            self.expander,
            self.text,
            quotes=self.quotes,
            at=self.at,
            depth=self.depth + 1,
            keeps_escapes=keeps_escapes,
        )
        word = reader.until(stop)
        self.at = reader.at
        if self.at >= len(self.text):
            raise ExpandError(f"syntax error: missing {missing}", start)
        return word

    def _pattern(self, name: str, rest: str, start: int) -> str:
        """`#`, `%` and `/`: a pattern, and for `/` what comes in its place. Both keep their escapes, as in BuildKit:
        the pattern's are read by `_regex`, those of the replacement are part of it."""
        kind = rest[0]
        twice = rest[1:2] == kind
        self.at += 2 if twice else 1
        if kind != "/":
            pattern = self._escaped_pattern("}", start, "'}'")
            self.at += 1
            return _trimmed(self.expander.lookup(name, start) or "", kind, pattern, longest=twice)
        pattern = self._escaped_pattern("/", start, "'/' in ${}")
        self.at += 1
        new = self._inner("}", start, keeps_escapes=True)
        self.at += 1
        value = self.expander.lookup(name, start) or ""

        # What `*` took can't be followed by another one, which is empty.
        def found(match: re.Match[str]) -> str:
            return "" if pattern and match.start() == match.end() > 0 else new

        return re.sub(_regex(pattern, greedy=True), found, value, count=0 if twice else 1)

    def _escaped_pattern(self, stop: str, start: int, missing: str) -> str:
        """A pattern's text with a backslash for each escape. Raises ExpandError for an escape that means nothing."""
        pattern = self._inner(stop, start, keeps_escapes=True, missing=missing)
        if self.expander.escape != "\\":
            pattern = pattern.replace(self.expander.escape, "\\")
        for escaped in re.findall(r"(?s)\\(.)", pattern):
            if escaped not in "}/*?\\":
                raise ExpandError(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'", start)
        return pattern


def _trimmed(value: str, kind: str, pattern: str, *, longest: bool) -> str:
    """`${v#p}` and `${v%p}`: the value without what the pattern matches at its beginning or end."""
    if kind == "%":
        return _without_suffix(value, pattern, longest=longest)
    match = re.match(_regex(pattern, greedy=longest), value, re.DOTALL)
    return value[match.end() :] if match else value


def _regex(pattern: str, *, greedy: bool) -> str:
    """A shell pattern of `*`, `?` and escapes as a regular expression."""
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            out.append("(?s:.*)" if greedy else "(?s:.*?)")
        elif char == "?":
            out.append("(?s:.)")
        else:
            if char == "\\" and at + 1 < len(pattern):
                at += 1
                char = pattern[at]
            out.append(re.escape(char))
        at += 1
    return "".join(out)


def _without_suffix(value: str, pattern: str, *, longest: bool) -> str:
    expression = re.compile(_regex(pattern, greedy=True))
    starts = range(len(value) + 1) if longest else range(len(value), -1, -1)
    for start in starts:
        if expression.fullmatch(value, start):
            return value[:start]
    return value
