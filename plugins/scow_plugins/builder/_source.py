"""A Dockerfile's text with its positions, and errors that show the line with a caret under what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from scow.api import Invalid


@dataclass(frozen=True, slots=True)
class Source:
    """A file's name, as the user knows it, and its lines without their ends."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written: lines from 1, columns from 0; `width` characters of the first line."""

    source: Source
    line: int
    column: int = 0
    width: int = 0

    def __str__(self) -> str:
        # Line 0: the file as a whole.
        return f"{self.source.name}:{self.line}" if self.line else self.source.name

    def shown(self) -> str:
        """The line with its number, and carets below what is meant."""
        if not 0 < self.line <= len(self.source.lines):
            return ""
        raw = self.source.lines[self.line - 1]
        gutter = f"{self.line:>5} | "
        # Tabs stay tabs, so that the caret stands where the eye expects it.
        lead = "".join("\t" if each == "\t" else " " for each in raw[: self.column])
        width = max(1, min(self.width, len(raw) - self.column))
        return f"{gutter}{raw}\n{' ' * 5} | {lead}{'^' * width}"


def wrong(place: Place, message: str, *, hint: str | None = None) -> Invalid:
    """The error for a mistake in the file: where, what, the line itself. To be raised."""
    return Invalid(located(place, message), hint=hint)


def located(place: Place, message: str) -> str:
    """A message with file, line and the line shown."""
    shown = place.shown()
    return f"{place}: {message}" + (f"\n{shown}" if shown else "")


@dataclass(frozen=True, slots=True)
class Heredoc:
    """One here-document: `raw` is what stands between the marks, tabs and all."""

    name: str
    raw: str
    #: The content's variables are replaced: the name was not quoted.
    expand: bool
    #: `<<-`: leading tabs don't count.
    chomp: bool
    line: int

    @property
    def content(self) -> str:
        """What the file holds, before variables are replaced."""
        return "".join(line.lstrip("\t") for line in self.raw.splitlines(keepends=True)) if self.chomp else self.raw


@dataclass(frozen=True, slots=True)
class Option:
    """One `--name=value` before an instruction's arguments; `value` is None without `=`."""

    name: str
    value: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One logical line: continuation lines joined, comments left out.

    `text` is the whole of it; `segments` say where its pieces come from: (offset in `text`, line, column).
    """

    source: Source
    text: str
    segments: tuple[tuple[int, int, int], ...]
    keyword: str
    options: tuple[Option, ...]
    rest: str
    rest_at: int
    heredocs: tuple[Heredoc, ...] = ()
    #: Comment lines right above it.
    comments: tuple[str, ...] = field(default=())

    @property
    def name(self) -> str:
        """The instruction in capitals."""
        return self.keyword.upper()

    @property
    def line(self) -> int:
        return self.segments[0][1]

    @property
    def lines(self) -> range:
        """All lines that it takes, its here-documents with their ends included."""
        last = self.segments[-1][1]
        if self.heredocs:
            last = self.heredocs[-1].line + self.heredocs[-1].raw.count("\n")
        return range(self.line, last + 1)

    def place(self, offset: int = 0, width: int = 0) -> Place:
        """Where a character of `text` is written."""
        found = self.segments[0]
        for segment in self.segments:
            if segment[0] > offset:
                break
            found = segment
        return Place(self.source, found[1], found[2] + offset - found[0], width)

    @property
    def place_of_rest(self) -> Place:
        """Where the arguments begin."""
        return self.place(self.rest_at, len(self.rest)) if self.rest else self.place(0, len(self.keyword))

    def find(self, word: str, start: int | None = None) -> Place:
        """Where a word of the arguments is written; the arguments' beginning if it isn't found."""
        at = self.text.find(word, self.rest_at if start is None else start) if word else -1
        return self.place(at, len(word)) if at >= 0 else self.place_of_rest
