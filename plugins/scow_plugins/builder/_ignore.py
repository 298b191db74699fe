"""`.dockerignore`: which files of a context count. The rules are Go's filepath.Match and moby's patternmatcher.

A pattern matches a path, or any directory above it; `!` takes back; the last pattern that matches counts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from scow.api import Invalid
from scow_plugins.builder._wild import Kind, Wild

#: What isn't itself in a pattern.
_SPECIAL: Final = re.compile(r"[*?\[\]\\]")
#: With more wildcards a regular expression may take too long.
_REGEX_MAX: Final = 2
#: What it is, and the regular expression for it.
Part: TypeAlias = tuple[Kind, str]


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line: its text without the `!`, and what it means."""

    text: str
    negative: bool
    matches: Callable[[str], object]


def read_patterns(data: bytes) -> tuple[str, ...]:
    """The patterns of an ignore file: comments and empty lines left out, cleaned as paths."""
    found = []
    # Only \n ends a line (moby's ignorefile); a \r before it is a blank like others.
    for line in data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape").split("\n"):
        if line.startswith("#"):
            continue
        text = line.strip()
        if not text:
            continue
        negative = text.startswith("!")
        if negative:
            text = text[1:].strip()
        if text:
            text = posixpath.normpath(text)
            if len(text) > 1 and text.startswith("/"):
                text = text.lstrip("/") or "/"
        found.append("!" + text if negative else text)
    return tuple(found)


class Ignore:
    """A list of patterns, asked for one path after the other. Raises Invalid for a pattern that is none."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(self._compiled(text) for text in patterns if text.strip())
        self._has_negative = any(pattern.negative for pattern in self.patterns)

    @staticmethod
    def _compiled(text: str) -> Pattern:
        negative = text.startswith("!")
        plain = text[1:] if negative else text
        if negative and not plain:
            raise Invalid('illegal exclusion pattern: "!"')
        plain = posixpath.normpath(plain)
        return Pattern(plain, negative, matcher(plain))

    def ignores(self, path: str) -> bool:
        """Whether a path (relative, with slashes) is left out."""
        if not self.patterns:
            return False
        ignored = False
        parents = [path[:at] for at, char in enumerate(path) if char == "/"]
        for pattern in self.patterns:
            if pattern.negative != ignored:
                continue  # it wouldn't change anything
            if pattern.matches(path) or any(pattern.matches(parent) for parent in parents):
                ignored = not pattern.negative
        return ignored

    def skips_tree(self, path: str) -> bool:
        """Whether nothing beneath an ignored directory can be taken back, so that nobody need look."""
        if not self._has_negative:
            return True
        prefix = path + "/"
        return not any(pattern.negative and (_could_be_beneath(pattern.text, prefix)) for pattern in self.patterns)


def _could_be_beneath(pattern: str, prefix: str) -> bool:
    """Careful: a pattern with wildcards may mean anything beneath its fixed beginning."""
    fixed = re.split(r"[*?\[\\]", pattern, maxsplit=1)[0]
    if fixed == pattern:
        return (pattern + "/").startswith(prefix)
    return fixed.startswith(prefix) or prefix.startswith(fixed)


def matcher(pattern: str) -> Callable[[str], object]:
    """A pattern as a question about a whole path: true when it is meant. Raises Invalid."""
    if pattern.startswith("**") and not _SPECIAL.search(pattern, 2):
        # moby's suffixMatch: `**.pyc` means every name that ends so, wherever it is.
        suffix = pattern[2:]
        return lambda path: path.endswith(suffix) or "/" + path == suffix
    parts = _parts(pattern)
    if sum(kind != "one" for kind, _ in parts) > _REGEX_MAX:
        return Wild([(kind, re.compile(text, re.DOTALL).fullmatch) for kind, text in parts]).matches
    return re.compile("(?s:" + "".join(text for _, text in parts) + ")").fullmatch


def _parts(pattern: str) -> list[Part]:
    """A pattern as pieces of a regular expression. Raises Invalid."""
    out: list[Part] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        part: Part
        if pattern.startswith("**", at):
            at += 3 if pattern.startswith("/", at + 2) else 2
            part = ("rest", ".*") if at >= len(pattern) else ("directories", "(?:.*/)?")
        elif char == "*":
            part, at = ("star", "[^/]*"), at + 1
        elif char == "?":
            part, at = ("one", "[^/]"), at + 1
        elif char == "[":
            text, at = _class(pattern, at)
            part = ("one", text)
        else:
            if char == "\\":
                at += 1
                if at >= len(pattern):
                    raise Invalid(f"pattern {pattern!r} ends with a backslash")
            part, at = ("one", re.escape(pattern[at])), at + 1
        # Two in a row mean no more than one.
        if part[0] == "one" or out[-1:] != [part]:
            out.append(part)
    return out


def _class(pattern: str, start: int) -> tuple[str, int]:
    """`[a-z]`, `[^a-z]`: the expression, and where the pattern goes on."""
    at = start + 1
    negative = pattern[at : at + 1] == "^"
    if negative:
        at += 1
    ranges: list[str] = []
    while at < len(pattern) and (pattern[at] != "]" or not ranges):
        low, at = _class_char(pattern, at)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _class_char(pattern, at + 1)
        if low > high:
            raise Invalid(f"pattern {pattern!r} has a range that ends before it begins")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    if at >= len(pattern):
        raise Invalid(f"pattern {pattern!r} has a class that isn't closed")
    return f"[{'^/' if negative else ''}{''.join(ranges)}]", at + 1


def _class_char(pattern: str, at: int) -> tuple[str, int]:
    if pattern[at : at + 1] == "\\":
        at += 1
    elif pattern[at : at + 1] in ("-", "]"):
        # Go's filepath.Match (getEsc): these two only stand for themselves behind a backslash.
        raise Invalid(f"pattern {pattern!r} has a syntax error: {pattern[at]!r} in a class needs a backslash")
    if at >= len(pattern):
        raise Invalid(f"pattern {pattern!r} has a class that isn't closed")
    return pattern[at], at + 1
