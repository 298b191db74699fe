"""INCLUDE FILE: another file's instructions in its place. An extension of scow's own, off unless it is asked for.

It is asked for with `# scow=include` among the parser directives, or by the command line. The file comes from the
context, where no ignore file hides it: it is a piece of the Dockerfile, not something to be copied. Every statement
keeps its own file and line, so that errors show where something is written.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from scow_plugins.builder._expand import Expander, ExpandError
from scow_plugins.builder._reader import SIZE_MAX, File, placed_words, read
from scow_plugins.builder._source import Place, Statement, wrong

NAME: Final = "INCLUDE"
_DEPTH: Final = 10
_MOST: Final = 1000
#: Gives a file of the context. Raises OSError.
Fetch = Callable[[str], bytes]


def with_includes(file: File, fetch: Fetch | None, *, wanted: bool) -> File:
    """The file with all that it includes. `fetch` None: there is no context. Raises Invalid, with the line shown."""
    if not wanted and "include" not in file.features:
        return file
    return _Includer(file, fetch).run()


@dataclass(frozen=True, slots=True)
class _Level:
    path: str
    file: File


class _Includer:
    def __init__(self, file: File, fetch: Fetch | None) -> None:
        self._file = file
        self._fetch = fetch
        self._count = 0
        self._size = 0
        self._empty: list[Place] = []

    def run(self) -> File:
        # What the main file is called in the context isn't known: a file that includes it is stopped by its depth.
        statements = tuple(self._spliced((_Level("", self._file),)))
        return replace(self._file, statements=statements, empty_lines=tuple(self._empty))

    def _spliced(self, levels: tuple[_Level, ...]) -> Iterator[Statement]:
        self._empty += levels[-1].file.empty_lines
        for statement in levels[-1].file.statements:
            if statement.name == NAME:
                yield from self._included(statement, levels)
            else:
                yield statement

    def _included(self, statement: Statement, levels: tuple[_Level, ...]) -> Iterator[Statement]:
        path = self._path(statement)
        place = statement.place_of_rest
        chain = " → ".join([*(level.path or self._file.source.name for level in levels), path])
        if any(level.path == path for level in levels):
            raise wrong(place, f"{path} includes itself: {chain}")
        if len(levels) > _DEPTH:
            raise wrong(place, f"files include each other more than {_DEPTH} deep: {chain}")
        self._count += 1
        if self._count > _MOST:
            raise wrong(place, f"more than {_MOST} files are included")
        file = self._read(path, place)
        yield from self._spliced((*levels, _Level(path, file)))

    def _path(self, statement: Statement) -> str:
        if statement.options:
            option = statement.options[0]
            raise wrong(statement.place(option.at, len(option.name) + 2), f"unknown flag: --{option.name}")
        text = statement.rest
        words = [word for _, word in placed_words(text, self._file.escape)]
        if len(words) != 1:
            raise wrong(statement.place_of_rest, "INCLUDE requires one argument: a file of the context")
        if "$" in text:
            raise wrong(
                statement.place_of_rest,
                "INCLUDE doesn't take variables",
                hint="files are put together before variables have values",
            )
        try:
            path = Expander({}, self._file.escape).word(words[0])
        except ExpandError as error:
            raise wrong(statement.place_of_rest, error.message) from None
        clean = posixpath.normpath("/" + path).lstrip("/")
        if not clean or path.endswith("/"):
            raise wrong(statement.place_of_rest, f"INCLUDE requires a file: {path!r} is none")
        return clean

    def _read(self, path: str, place: Place) -> File:
        if self._fetch is None:
            raise wrong(place, "there is no build context to include from", hint="scow build -f FILE DIRECTORY")
        try:
            data = self._fetch(path)
        except FileNotFoundError:
            raise wrong(place, f"{path} is not in the context") from None
        except OSError as error:
            raise wrong(place, f"{path} in the context can't be read: {error.strerror}") from None
        self._size += len(data)
        if self._size > SIZE_MAX:
            raise wrong(place, f"with {path} the files are larger than {SIZE_MAX >> 20} MiB")
        file = read(data, path, escape=self._file.escape)
        for name, line in file.directive_lines.items():
            if name == "check" or (name == "escape" and file.escape != self._file.escape):
                what = {"check": "check belongs into the first file", "escape": "the escape token must be one for all"}
                raise wrong(Place(file.source, line), f"{path} is included: {what[name]}")
        return file
