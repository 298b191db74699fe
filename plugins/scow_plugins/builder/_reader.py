"""From a Dockerfile's bytes to statements: directives, comments, continuation lines, flags, here-documents.

As `docker/dockerfile:1` reads it (dockerfile reference, "Format", "Parser directives", "Here-Documents"). What the
words mean is `_parse`'s business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from scow.api import Unsupported
from scow_plugins.builder._expand import Expander, ExpandError
from scow_plugins.builder._source import Heredoc, Option, Place, Source, Statement, located, wrong

_DIRECTIVE: Final = re.compile(r"#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*")
_ANNOUNCED: Final = re.compile(r"[0-9]*<<")
_HEREDOC: Final = re.compile(r"([0-9]*)<<(-?)([^<]*)")
_SHELL_ESCAPE: Final = "\\"
#: Whose arguments may hold here-documents.
_HERE: Final = frozenset({"RUN", "COPY", "ADD"})
#: The names of Docker's own frontend, of which this builder is another implementation.
_SYNTAX: Final = re.compile(r"(?:docker\.io/)?docker/dockerfile(?:-upstream)?(?::[\w.-]+)?(?:@sha256:[0-9a-f]{64})?")
#: What `# scow=…` switches on.
_FEATURES: Final = frozenset({"include"})
SIZE_MAX: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class File:
    """A Dockerfile that was read."""

    source: Source
    statements: tuple[Statement, ...]
    escape: str = "\\"
    syntax: str = ""
    #: `# check=skip=…`: rules that aren't checked; `all` for all of them.
    skip: frozenset[str] = frozenset()
    check_error: bool = False
    experimental: frozenset[str] = frozenset()
    #: Lines that are empty within a continued instruction.
    empty_lines: tuple[Place, ...] = ()
    directive_lines: dict[str, int] = field(default_factory=dict)
    #: `# scow=…`: what of scow's own is switched on.
    features: frozenset[str] = frozenset()


def read(data: bytes, name: str = "Dockerfile", *, escape: str = "\\") -> File:
    """Read a file; `escape` is the escape token, unless the file says another.

    Raises Invalid, with the line shown; Unsupported for the `syntax` of a stranger's frontend.
    """
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    raw = text.split("\n")
    # Here-documents keep what they are written with.
    crlf = frozenset(number for number, line in enumerate(raw, 1) if line.endswith("\r"))
    lines = tuple(line.removesuffix("\r") for line in raw)
    source = Source(name, lines)
    if len(data) > SIZE_MAX:
        raise wrong(Place(source, 0), f"the file is larger than {SIZE_MAX >> 20} MiB")
    if "\0" in text:
        raise wrong(Place(source, text[: text.index("\0")].count("\n") + 1), "the file has a zero byte: is it text?")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise wrong(Place(source, text[: error.start].count("\n") + 1), "the line is not valid UTF-8") from None
    return _Reader(source, escape, crlf).run()


class _Reader:
    def __init__(self, source: Source, escape: str, crlf: frozenset[int]) -> None:
        self.source = source
        #: Lines that end with \r\n, by number.
        self.crlf = crlf
        self.usual_escape = escape
        self.lines = source.lines
        self.at = 0
        self._places: dict[str, int] = {}
        self.directives: dict[str, tuple[str, int]] = {}
        self.empty: list[Place] = []

    def run(self) -> File:
        self._read_directives()
        escape = self._escape()
        statements = []
        comments: list[str] = []
        while self.at < len(self.lines):
            line = self.lines[self.at].strip()
            if not line or line.startswith("#"):
                comments = [*comments, line] if line else []
                self.at += 1
                continue
            statements.append(self._statement(escape, tuple(comments)))
            comments = []
        return File(
            self.source,
            tuple(statements),
            escape,
            self._syntax(),
            *self._check(),
            tuple(self.empty),
            {name: line for name, (_, line) in self.directives.items()},
            self._features(),
        )

    def _read_directives(self) -> None:
        """Only before anything else: the first line that is none ends them."""
        for number, line in enumerate(self.lines, 1):
            match = _DIRECTIVE.fullmatch(line.strip())
            name = match[1].lower() if match else ""
            if number == 1 and line.startswith("#!"):
                continue
            if match is None or name not in ("syntax", "escape", "check", "scow"):
                return
            if name in self.directives:
                raise wrong(Place(self.source, number, 0, len(line)), f"only one {name} parser directive can be used")
            self.directives[name] = (match[2], number)

    def _escape(self) -> str:
        escape, line = self.directives.get("escape", (self.usual_escape, 0))
        if escape not in ("\\", "`"):
            raise wrong(Place(self.source, line), f"the escape token {escape!r} must be \\ or `")
        return escape

    def _syntax(self) -> str:
        syntax, line = self.directives.get("syntax", ("", 0))
        image = syntax.split()[0] if syntax else ""
        if image and image != "dockerfile.v0" and not _SYNTAX.fullmatch(image):
            raise Unsupported(
                located(Place(self.source, line, 0, len(self.lines[line - 1])), f"the frontend {image} can't be used"),
                hint="scow reads Dockerfiles itself: write `# syntax=docker/dockerfile:1`, or leave the line out",
            )
        return syntax

    def _features(self) -> frozenset[str]:
        text, line = self.directives.get("scow", ("", 0))
        found = frozenset(filter(None, (each.strip() for each in text.split(","))))
        for name in sorted(found - _FEATURES):
            raise wrong(Place(self.source, line, 0, len(self.lines[line - 1])), f"scow has no {name!r} to switch on")
        return found

    def _check(self) -> tuple[frozenset[str], bool, frozenset[str]]:
        text, line = self.directives.get("check", ("", 0))
        skip: frozenset[str] = frozenset()
        experimental: frozenset[str] = frozenset()
        error = False
        for part in filter(None, (each.strip() for each in text.split(";"))):
            name, _, value = part.partition("=")
            names = frozenset(each.strip() for each in value.split(",") if each.strip())
            if name.strip() == "skip":
                skip = names
            elif name.strip() == "error" and value.strip().lower() in ("true", "false"):
                error = value.strip().lower() == "true"
            elif name.strip() == "experimental":
                experimental = names
            else:
                raise wrong(Place(self.source, line), f"invalid check option {part!r}: skip=…, error=true|false")
        return skip, error, experimental

    def _statement(self, escape: str, comments: tuple[str, ...]) -> Statement:
        text, segments = self._join(escape)
        keyword = re.split(r"\s", text, maxsplit=1)[0]
        after = len(keyword)
        options, rest_at = read_options(text, after, escape)
        heredocs: tuple[Heredoc, ...] = ()
        draft = Statement(self.source, text, segments, keyword, options, text[rest_at:], rest_at, (), comments)
        inner = keyword.upper()
        if inner == "ONBUILD":
            inner = text[rest_at:].split(None, 1)[0].upper() if text[rest_at:].split() else ""
        if inner in _HERE and "<<" in draft.rest:
            heredocs = self._heredocs(draft)
        return Statement(self.source, text, segments, keyword, options, text[rest_at:], rest_at, heredocs, comments)

    def _join(self, escape: str) -> tuple[str, tuple[tuple[int, int, int], ...]]:
        """One logical line, and where its pieces come from."""
        more = re.compile(rf"(^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
        pieces: list[str] = []
        segments: list[tuple[int, int, int]] = []
        length, first = 0, True
        gap: list[int] = []
        while self.at < len(self.lines):
            line = self.lines[self.at]
            column = len(line) - len(line.lstrip()) if first else 0
            if not first and line.lstrip().startswith("#"):
                self.at += 1
                continue
            if not first and not line.strip():
                gap.append(self.at + 1)
                self.at += 1
                continue
            self.empty += [Place(self.source, line) for line in gap]
            gap = []
            piece = line[column:]
            match = more.search(piece)
            if match is not None:
                piece = piece[: match.start()] + match[1]
            segments.append((length, self.at + 1, column))
            pieces.append(piece)
            length += len(piece)
            self.at += 1
            first = False
            if match is None:
                break
        return "".join(pieces).rstrip(), tuple(segments)

    def _last(self, line: str) -> int:
        """Where a line stands for the last time; -1: nowhere."""
        if not self._places:
            self._places = {text: number for number, text in enumerate(self.lines)}
        return self._places.get(line, -1)

    def _heredocs(self, statement: Statement) -> tuple[Heredoc, ...]:
        found = []
        for name, expand, chomp, spaced in heredocs_of(statement):
            # `$((1 << 2))` is one for BuildKit, too, which then misses its end: nobody can mean that.
            if spaced and self._last(name) < self.at:
                continue
            start = self.at
            body: list[str] = []
            while True:
                if self.at >= len(self.lines):
                    place = statement.find("<<")
                    raise wrong(place, f"unterminated heredoc: no line says {name}")
                line = self.lines[self.at]
                self.at += 1
                if (line.lstrip("\t") if chomp else line) == name:
                    break
                body.append(line + ("\r\n" if self.at in self.crlf else "\n"))
            found.append(Heredoc(name, "".join(body), expand, chomp, start + 1))
        return tuple(found)


def heredocs_of(statement: Statement) -> list[tuple[str, bool, bool, bool]]:
    """The here-documents that a statement's words announce: (name, expand, chomp, whether a space is before the name).

    With a space (`cat << EOF`) they are the shell's, so that only RUN has them. Their names are quoted as a shell
    does it, with a backslash, whatever the file's escape is: so does BuildKit's frontend.
    """
    try:
        words = raw_words(statement.rest, _SHELL_ESCAPE)
    except ExpandError:
        return []
    found = []
    takes_spaces = _runs(statement)
    for number, word in enumerate(words):
        spaced = takes_spaces and _ANNOUNCED.fullmatch(word) is not None and number + 1 < len(words)
        match = _HEREDOC.fullmatch(word + words[number + 1] if spaced else word)
        if match is None or not match[3]:
            continue
        marker = match[3]
        try:
            names = Expander({}, _SHELL_ESCAPE).words(marker.replace("$", _SHELL_ESCAPE + "$"))
        except ExpandError as error:
            raise wrong(statement.find(word), error.message) from None
        if len(names) == 1 and names[0]:
            found.append((names[0], names[0] == marker, match[2] == "-", spaced))
    return found


def _runs(statement: Statement) -> bool:
    words = statement.rest.split(None, 1)
    return statement.name == "RUN" or (statement.name == "ONBUILD" and bool(words) and words[0].upper() == "RUN")


def raw_words(text: str, escape: str) -> list[str]:
    """Words with their quotes, escapes and variables as they are written. Raises ExpandError (an open quote)."""
    return [word for _, word in placed_words(text, escape)]


def placed_words(text: str, escape: str) -> list[tuple[int, str]]:
    """The same with each word's offset."""
    found: list[tuple[int, str]] = []
    start, quote, at = -1, "", 0
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            if start >= 0:
                found.append((start, text[start:at]))
            start = -1
            at += 1
            continue
        if start < 0:
            start = at
        if quote:
            if char == quote:
                quote = ""
            elif char == escape and quote == '"':
                at += 1
        elif char in "'\"":
            quote = char
        elif char == escape:
            at += 1
        at += 1
    if start >= 0:
        found.append((start, text[start:]))
    return found


def read_options(text: str, at: int, escape: str) -> tuple[tuple[Option, ...], int]:
    """The `--flags` behind the keyword, and where the arguments begin."""
    found: list[Option] = []
    while True:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith("--", at):
            return tuple(found), at
        words = placed_words(text[at:], escape)
        word = words[0][1]
        end = at + len(word)
        if word == "--":
            while end < len(text) and text[end].isspace():
                end += 1
            return tuple(found), end
        name, equals, value = _unquoted(word[2:], escape).partition("=")
        found.append(Option(name, value if equals else None, at))
        at = end


def _unquoted(word: str, escape: str) -> str:
    """A flag without its quotes; variables stay for later."""
    out, quote, at = [], "", 0
    while at < len(word):
        char = word[at]
        if char == escape and quote != "'" and at + 1 < len(word) and word[at + 1] != "$":
            at += 1
            out.append(word[at])
        elif quote and char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        else:
            out.append(char)
        at += 1
    return "".join(out)
