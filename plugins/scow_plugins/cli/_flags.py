"""Flags as Docker's programs read them (Go's pflag): declared as data, parsed by a pure function.

    -it   -p8080:80   -p=8080:80   -p 8080:80   --name x   --name=x   --rm   --rm=false   --

Names are never abbreviated. Where `interspersed` is false, flags end at the first word that is none (the image), so
that what follows belongs to the container. Imports nothing heavy: `--help` and usage errors are to be quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from scow_plugins.cli._values import VALUES


class UsageError(Exception):
    """The words make no command. `command` is what `See '… --help'` names."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.command = ""


class FlagError(UsageError):
    """A flag that isn't there, or whose value can't be read: exit code 125, whatever the command (docker 28)."""


class WordsError(UsageError):
    """Too many words, or too few: exit code 1, also of `run` (docker 28)."""


class Flag(NamedTuple):
    """One flag. `kind` is a key of `VALUES`, `bool` or `list`; `default` is what `--help` shows, if anything."""

    name: str
    help: str
    kind: str = "bool"
    short: str = ""
    default: Any = None
    #: Other spellings (--net for --network), not shown.
    also: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """As Docker writes it in messages: `-m, --memory`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Command(NamedTuple):
    """What a command takes. `usage` is its line without the program's name; `most` None: any number of words.

    `refused` holds flags that docker has and scow doesn't (with their dashes), and why or what to do instead.
    """

    usage: str
    flags: tuple[Flag, ...] = ()
    least: int = 0
    most: int | None = 0
    interspersed: bool = True
    refused: Mapping[str, str] = {}
    #: The exit codes of `run` (125, 126, 127) instead of those of other commands.
    runs: bool = False
    details: str = ""


class Args:
    """Parsed flags by name, and the words beside them."""

    def __init__(self, flags: tuple[Flag, ...]) -> None:
        self._values: dict[str, Any] = {flag.name: flag.default for flag in flags}
        self._lists: dict[str, list[str]] = {flag.name: [] for flag in flags if flag.kind == "list"}
        self.given: set[str] = set()
        self.words: tuple[str, ...] = ()

    def set(self, flag: Flag, value: Any) -> None:
        """Take a value: lists grow, of others the last one counts."""
        self.given.add(flag.name)
        if flag.kind == "list":
            self._lists[flag.name].append(value)
        else:
            self._values[flag.name] = value

    def on(self, name: str) -> bool:
        """A bool flag."""
        return bool(self._values[name])

    def text(self, name: str) -> str | None:
        """A string flag; None when it wasn't given and has no default."""
        value = self._values[name]
        return None if value is None else str(value)

    def number(self, name: str) -> int | None:
        """An int or bytes flag."""
        value = self._values[name]
        return None if value is None else int(value)

    def decimal(self, name: str) -> float | None:
        """A flag with a fraction."""
        value = self._values[name]
        return None if value is None else float(value)

    def all(self, name: str) -> tuple[str, ...]:
        """A list flag: every value, in order."""
        return tuple(self._lists[name])


HELP: Final = Flag("help", "Print usage")


def near(word: str, known: Iterable[str], before: str = "") -> str | None:
    """A hint at what somebody who mistyped a word will have meant."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(known), n=1)
    return f"did you mean {before}{close[0]}?" if close else None


def parse(command: Command, words: list[str]) -> Args:
    """Read a command's words. `args.on("help")` is true where help was asked for. Raises UsageError."""
    parser = _Parser(command)
    args = parser.run(list(words))
    if not args.on("help"):
        _check_count(command, len(args.words))
    return args


def _check_count(command: Command, count: int) -> None:
    if count < command.least:
        some = "exactly" if command.most == command.least else "at least"
        raise WordsError(f"this command needs {some} {_arguments(command.least)}")
    if command.most is not None and count > command.most:
        if command.most == 0:
            raise WordsError("this command takes no arguments")
        raise WordsError(f"this command takes at most {_arguments(command.most)}")


def _arguments(number: int) -> str:
    return f"{number} argument" + ("" if number == 1 else "s")


class _Parser:
    def __init__(self, command: Command) -> None:
        self.command = command
        flags = (*command.flags, HELP)
        self.long = {name: flag for flag in flags for name in (flag.name, *flag.also)}
        self.short = {flag.short: flag for flag in flags if flag.short}
        self.args = Args(flags)

    def run(self, words: list[str]) -> Args:
        plain: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--":
                plain += words
                break
            if word.startswith("--"):
                self._long(word[2:], words)
            elif word.startswith("-") and word != "-":
                self._shorts(word, words)
            else:
                plain.append(word)
                if not self.command.interspersed:
                    plain += words
                    break
        self.args.words = tuple(plain)
        return self.args

    def _long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word.partition("=")
        flag = self.long.get(name)
        if flag is None:
            self._refuse(f"--{name}")
            raise FlagError(f"unknown flag: --{name}", hint=near(name, self.long, "--"))
        if equals:
            self._take(flag, value)
        elif flag.kind == "bool":
            self.args.set(flag, True)
        else:
            self._take(flag, self._next(f"--{name}", rest))

    def _shorts(self, word: str, rest: list[str]) -> None:
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            flag = self.short.get(letter)
            if flag is None and letter == "h":
                flag = HELP
            if flag is None:
                self._refuse(f"-{letter}")
                raise FlagError(f"unknown shorthand flag: {letter!r} in {word}")
            if letters.startswith("="):
                return self._take(flag, letters[1:])
            if flag.kind == "bool":
                self.args.set(flag, True)
            else:
                value = letters or self._next(f"{letter!r} in {word}", rest)
                return self._take(flag, value)
        return None

    def _next(self, shown: str, rest: list[str]) -> str:
        if not rest:
            raise FlagError(f"flag needs an argument: {shown}")
        return rest.pop(0)

    def _take(self, flag: Flag, text: str) -> None:
        convert: Callable[[str], Any] = VALUES[flag.kind]
        try:
            value = convert(text)
        except ValueError as error:
            raise FlagError(f'invalid argument "{text}" for "{flag.label}" flag: {error}') from None
        self.args.set(flag, value)

    def _refuse(self, spelled: str) -> None:
        hint = self.command.refused.get(spelled)
        if hint is not None:
            raise FlagError(f"{spelled} is not supported by scow", hint=hint or None)
