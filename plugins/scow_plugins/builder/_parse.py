"""From statements to instructions: each keyword's own grammar (dockerfile reference). Raises Invalid with the line."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from scow.api import Unsupported
from scow_plugins.builder._expand import ExpandError
from scow_plugins.builder._include import NAME as INCLUDE
from scow_plugins.builder._include import Fetch, with_includes
from scow_plugins.builder._instructions import (
    Arg,
    Cmd,
    CommandLine,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    OnBuild,
    Run,
    RunMount,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from scow_plugins.builder._reader import File, placed_words, read, read_options
from scow_plugins.builder._source import Heredoc, Option, Place, Source, Statement, located, wrong

_STAGE: Final = re.compile(r"[a-z][a-z0-9_.-]*")
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS: Final = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_MOUNT_KEYS: Final[dict[str, frozenset[str]]] = {
    "bind": frozenset({"target", "source", "from", "rw"}),
    "cache": frozenset({"id", "target", "ro", "sharing", "from", "source", "mode", "uid", "gid"}),
    "tmpfs": frozenset({"target", "size"}),
    "secret": frozenset({"id", "source", "target", "env", "required", "mode", "uid", "gid"}),
    "ssh": frozenset({"id", "target", "required", "mode", "uid", "gid"}),
}
_CSV_FIELD: Final = re.compile(r'"((?:[^"]|"")*)"|([^",]*)')
#: How steps may share a cache.
SHARING: Final = ("shared", "private", "locked")
_MOUNT_NAMES: Final = {
    "src": "source", "dst": "target", "destination": "target", "readonly": "ro", "readwrite": "rw",
}  # fmt: skip
_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "FROM": frozenset({"platform"}),
    "RUN": frozenset({"mount", "network", "security", "device"}),
    "COPY": frozenset({"from", "chown", "chmod", "link", "parents", "exclude"}),
    "ADD": frozenset({"chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "start-interval", "retries"}),
}
_SPACES: Final = re.compile(r"[\t\v\f\r ]+")
#: Without an argument they are an empty line for the shell, as in BuildKit (parser, parseMaybeJSON).
_MAY_BE_BARE: Final = frozenset({"RUN", "CMD", "ENTRYPOINT"})
_SEVERAL: Final = frozenset({"mount", "exclude", "device"})


def parse(
    data: bytes, name: str = "Dockerfile", fetch: Fetch | None = None, *, include: bool = False
) -> tuple[File, tuple[Instruction, ...]]:
    """Read and understand a Dockerfile, with the files that it includes. Raises Invalid, Unsupported."""
    file = with_includes(read(data, name), fetch, wanted=include)
    return file, tuple(instruction(statement, file.escape) for statement in file.statements)


def parse_trigger(text: str, escape: str = "\\") -> Instruction:
    """An ONBUILD trigger out of an image's configuration. Raises Invalid."""
    file = read(text.encode(errors="surrogateescape"), "ONBUILD trigger")
    if len(file.statements) != 1:
        raise wrong(file.statements[0].place() if file.statements else _nowhere(text), "a trigger is one instruction")
    found = instruction(file.statements[0], escape)
    _check_trigger(found, file.statements[0])
    return found


def _nowhere(text: str) -> Place:
    return Place(Source("ONBUILD trigger", (text,)), 1)


def instruction(statement: Statement, escape: str) -> Instruction:
    """One instruction. Raises Invalid, Unsupported."""
    reader = _READERS.get(statement.name)
    if statement.name == INCLUDE:
        raise wrong(
            statement.place(0, len(statement.keyword)),
            f"unknown instruction: {statement.keyword}",
            hint="INCLUDE is scow's own: `# scow=include` at the file's beginning, or --include, switches it on",
        )
    if reader is None:
        close = difflib.get_close_matches(statement.name, _READERS, n=1)
        raise wrong(
            statement.place(0, len(statement.keyword)),
            f"unknown instruction: {statement.keyword}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    known = _OPTIONS.get(statement.name, frozenset())
    seen = set()
    for option in statement.options:
        place = statement.place(option.at, len(option.name) + 2)
        if option.name not in known:
            close = difflib.get_close_matches(option.name, known, n=1)
            raise wrong(
                place,
                f"unknown flag: --{option.name}",
                hint=f"did you mean --{close[0]}?" if close else None,
            )
        if option.name in seen and option.name not in _SEVERAL:
            raise wrong(place, f"duplicate flag: --{option.name}")
        seen.add(option.name)
    if not statement.rest and not statement.heredocs and statement.name not in _MAY_BE_BARE:
        what = "one argument" if statement.name in ("WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER") else "an argument"
        raise wrong(statement.place(0, len(statement.keyword)), f"{statement.name} requires {what}")
    return reader(statement, escape)


class _Options:
    """An instruction's flags by name."""

    def __init__(self, statement: Statement) -> None:
        self.statement = statement
        self._options = {option.name: option for option in statement.options}

    def text(self, name: str) -> str:
        """A flag with a value, which may be empty (`--chmod=`); empty when it isn't there."""
        option = self._options.get(name)
        if option is None:
            return ""
        if option.value is None:
            raise wrong(self.place(option), f"missing a value on flag: --{name}")
        return option.value

    def on(self, name: str) -> bool:
        """A flag that is there, or says true or false."""
        return bool(self.maybe(name))

    def maybe(self, name: str) -> bool | None:
        option = self._options.get(name)
        if option is None:
            return None
        if option.value == "":
            raise wrong(self.place(option), f"missing a value on flag: --{name}")
        value = (option.value or "true").lower()
        if value not in ("true", "false", "1", "0"):
            raise wrong(self.place(option), f"expecting boolean value for flag --{name}, not: {option.value}")
        return value in ("true", "1")

    def place(self, option: Option) -> Place:
        """Where it is written."""
        return self.statement.place(option.at, len(option.name) + 2)

    def all(self, name: str) -> Iterable[Option]:
        return (option for option in self.statement.options if option.name == name)


def _words(statement: Statement, escape: str) -> list[tuple[int, str]]:
    try:
        return placed_words(statement.rest, escape)
    except ExpandError as error:
        raise wrong(statement.place(statement.rest_at + error.at), error.message) from None


def _plain_words(statement: Statement) -> tuple[str, ...]:
    """Words between spaces, whatever is quoted: as BuildKit splits those of FROM, COPY, ADD, EXPOSE and VOLUME.

    (frontend/dockerfile/parser, parseStringsWhitespaceDelimited.) A quote that is open at a word's end is found later.
    """
    return tuple(_SPACES.split(statement.rest.strip()))


def _json(statement: Statement, text: str) -> tuple[str, ...] | None:
    """The words of a JSON form; None for what is none."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text.strip())
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(each, str) for each in found):
        raise wrong(statement.place_of_rest, "only strings are allowed in the JSON form")
    if any("\0" in each or _is_surrogate(each) for each in found):
        raise wrong(statement.place_of_rest, "a word of the JSON form is no text")
    return tuple(found)


def _is_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _command_line(statement: Statement, text: str) -> CommandLine:
    words = _json(statement, text)
    return CommandLine((text,), True) if words is None else CommandLine(words, False)


def _from(statement: Statement, _: str) -> From:
    words = _plain_words(statement)
    platform = _Options(statement).text("platform")
    if len(words) == 1:
        return From(statement, words[0], platform=platform)
    if len(words) != 3 or words[1].upper() != "AS":
        raise wrong(statement.place_of_rest, "FROM requires either one or three arguments: FROM image [AS name]")
    name = words[2]
    if not _STAGE.fullmatch(name.lower()):
        raise wrong(
            statement.find(name, statement.text.rfind(words[1])),
            f"invalid name for build stage: {name!r}",
            hint="a name can't start with a number or contain symbols",
        )
    return From(statement, words[0], name, platform)


def _arg(statement: Statement, escape: str) -> Arg:
    values: list[tuple[str, str | None]] = []
    for at, word in _words(statement, escape):
        name, equals, value = word.partition("=")
        if not name:
            place = statement.place(statement.rest_at + at, len(word))
            raise wrong(place, "an ARG needs a name before the equals sign")
        values.append((name, value if equals else None))
    return Arg(statement, tuple(values))


def _pairs(statement: Statement, escape: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    words = _words(statement, escape)
    if "=" not in words[0][1]:
        parts = statement.rest.split(None, 1)
        if len(parts) < 2:
            place = statement.place_of_rest
            raise wrong(place, f"{statement.name} must have two arguments", hint=f"write {statement.name} name=value")
        return ((parts[0], parts[1]),), True
    values = []
    for at, word in words:
        name, equals, value = word.partition("=")
        place = statement.place(statement.rest_at + at, len(word))
        if not equals:
            raise wrong(place, f"can't find = in {word!r}", hint="it must be of the form: name=value")
        if not name:
            raise wrong(place, f"{statement.name} names can not be blank")
        values.append((name, value))
    return tuple(values), False


def _run(statement: Statement, _: str) -> Run:
    options = _Options(statement)
    if any(True for _ in options.all("device")):
        place = options.place(next(iter(options.all("device"))))
        raise Unsupported(located(place, "RUN --device is not supported"), hint="containers get no devices of the host")
    network = options.text("network") or "default"
    if network not in ("default", "none", "host"):
        raise wrong(statement.find("--network", 0), f"unsupported network mode {network!r}: default, none or host")
    security = options.text("security") or "sandbox"
    if security not in ("sandbox", "insecure"):
        raise wrong(statement.find("--security", 0), f"security {security!r} is not valid: sandbox or insecure")
    mounts = tuple(_mount(statement, option) for option in options.all("mount"))
    return Run(statement, _command_line(statement, statement.rest), mounts, network, security, statement.heredocs)


def _mount(statement: Statement, option: Option) -> RunMount:
    place = statement.place(option.at, len(option.name) + 2)
    if not option.value:
        raise wrong(place, "missing a value on flag: --mount")
    values: list[tuple[str, str]] = []
    try:
        fields = _comma_separated(option.value)
    except ValueError as error:
        raise wrong(place, f"invalid mount: {error}") from None
    for field in fields:
        key, equals, value = field.partition("=")
        key = _MOUNT_NAMES.get(key.lower().strip(), key.lower().strip())
        if not equals and key not in ("ro", "rw", "required"):
            raise wrong(place, f"invalid field {field!r}: must be a key=value pair")
        values.append((key, value if equals else "true"))
    kind = dict(values).get("type", "bind")
    mount = RunMount(kind, tuple((key, value) for key, value in values if key != "type"))
    # What kind of mount it is may be said by a variable: then it is checked when that has a value.
    return mount if "$" in kind else checked_mount(mount, place)


def checked_mount(mount: RunMount, place: Place) -> RunMount:
    """A mount whose kind is known: one that there is, with keys that go together. Raises Invalid."""
    mount = RunMount(mount.kind.lower(), mount.values)
    kind = mount.kind
    if kind not in _MOUNT_KEYS:
        raise wrong(place, f"unsupported mount type {kind!r}", hint=_meant(kind, _MOUNT_KEYS))
    known = _MOUNT_KEYS[kind] | {"ro", "rw"}
    for key, _ in mount.values:
        if key not in known:
            raise wrong(place, f"unexpected key {key!r} in a mount of type {kind}", hint=_meant(key, known))
    if kind in ("bind", "cache", "tmpfs") and not mount.get("target"):
        raise wrong(place, f"a mount of type {kind} needs a target")
    sharing = mount.get("sharing") or "shared"
    if kind == "cache" and "$" not in sharing and sharing.lower() not in SHARING:
        raise wrong(place, f"unsupported sharing value {sharing!r}", hint=_meant(sharing, SHARING))
    if kind == "secret":
        if not (mount.get("id") or mount.get("source") or mount.get("target")):
            raise wrong(place, "a secret needs an id or a target")
        if mount.get("id") and mount.get("source"):
            raise wrong(place, "a secret's id and source are the same thing: write one of them")
    return mount


def _meant(text: str, known: Iterable[str]) -> str:
    """A hint: the word that was probably meant, else all there are."""
    close = difflib.get_close_matches(text, sorted(known), n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"


def _comma_separated(text: str) -> list[str]:
    """The fields of one line of CSV (RFC 4180, section 2): one that holds a comma or a quote stands in quotes.

    Python's csv takes a quote in the middle of a field for a letter, which BuildKit refuses. Raises ValueError.
    """
    fields, at = [], 0
    while True:
        match = _CSV_FIELD.match(text, at)
        assert match is not None  # a field may be empty
        at = match.end()
        if at < len(text) and text[at] != ",":
            raise ValueError(f"{text!r}: a quote in the middle of a field, or one that isn't closed")
        fields.append(match[2].strip() if match[1] is None else match[1].replace('""', '"'))
        if at == len(text):
            return fields
        at += 1


def _copy(statement: Statement, _: str) -> Copy:
    options = _Options(statement)
    text = statement.rest
    words = _json(statement, text)
    if words is None:
        words = _plain_words(statement)
    if len(words) < 2:
        raise wrong(
            statement.place_of_rest,
            f"{statement.name} requires at least two arguments, but only {'one was' if words else 'none were'} "
            f"provided: destination could not be determined",
        )
    names = {heredoc.name for heredoc in statement.heredocs}
    kept = tuple(word for word in words[:-1] if not _names_heredoc(word, names))
    if _names_heredoc(words[-1], names):
        raise wrong(statement.place_of_rest, f"{statement.name} cannot accept a heredoc as a destination")
    found = Copy(
        statement,
        kept,
        words[-1],
        statement.name == "ADD",
        chown=options.text("chown"),
        chmod=options.text("chmod"),
        link=options.on("link"),
        exclude=tuple(option.value or "" for option in options.all("exclude")),
        heredocs=statement.heredocs,
    )
    if found.add:
        return replace(
            found,
            checksum=options.text("checksum"),
            keep_git_dir=options.on("keep-git-dir"),
            unpack=options.maybe("unpack"),
        )
    stage = options.text("from")
    if "$" in stage:
        raise wrong(
            statement.find("--from", 0),
            "--from doesn't take variables",
            hint="give the image a name with FROM $image AS name, and use the name",
        )
    if stage and statement.heredocs:
        raise wrong(statement.find("--from", 0), "COPY --from can't be used with a heredoc")
    return replace(found, stage=stage, parents=options.on("parents"))


def _names_heredoc(word: str, names: set[str]) -> bool:
    match = re.fullmatch(r"[0-9]*<<-?(.+)", word)
    return match is not None and match[1].strip("'\"").replace("\\", "") in names


def _one(make: Callable[[Statement, str], Instruction]) -> Callable[[Statement, str], Instruction]:
    return lambda statement, _: make(statement, statement.rest)


def _volume(statement: Statement, _: str) -> Volume:
    words = _json(statement, statement.rest)
    if words is None:
        words = _plain_words(statement)
    if not words or any(not word.strip() for word in words):
        raise wrong(statement.place_of_rest, "VOLUME specified can not be an empty string")
    return Volume(statement, words)


def _shell(statement: Statement, _: str) -> Shell:
    words = _json(statement, statement.rest)
    if not words:
        raise wrong(statement.place_of_rest, "SHELL requires the arguments to be in JSON form")
    return Shell(statement, words)


def _health(statement: Statement, escape: str) -> Healthcheck:
    kind, *rest = statement.rest.split(None, 1)
    if kind.upper() == "NONE":
        if rest:
            raise wrong(statement.place_of_rest, "HEALTHCHECK NONE takes no arguments")
        return Healthcheck(statement, None)
    if kind.upper() != "CMD":
        raise wrong(statement.place_of_rest, f"unknown type {kind!r} in HEALTHCHECK: CMD or NONE")
    if not rest:
        raise wrong(statement.place_of_rest, "missing command after HEALTHCHECK CMD")
    command = _command_line(statement, rest[0])
    if not command.words:
        raise wrong(statement.place_of_rest, "missing command after HEALTHCHECK CMD")
    options = {option.name: option for option in statement.options}
    retries = options.pop("retries", None)
    times = {name.replace("-", "_"): _duration(statement, option) for name, option in options.items()}
    return Healthcheck(statement, command, retries=_retries(statement, retries), **times)


def _retries(statement: Statement, option: Option | None) -> int | None:
    if option is None or option.value == "":
        return None
    if option.value is None or not re.fullmatch(r"\+?[0-9]{1,9}", option.value):
        raise wrong(statement.place(option.at, 9), f"--retries must be a number that is at least 0, not {option.value}")
    return int(option.value)


def _duration(statement: Statement, option: Option) -> int | None:
    """Go's time.ParseDuration, in nanoseconds; what is less than a millisecond is refused, as in BuildKit."""
    if option.value == "":
        return None
    text = option.value or ""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    at, total = 0, 0.0
    while match := _DURATION.match(unsigned, at):
        total += float(match[1]) * _NANOSECONDS[match[2]]
        at = match.end()
    place = statement.place(option.at, len(option.name) + 2)
    if unsigned == "0":
        return 0
    if not unsigned or at != len(unsigned):
        raise wrong(place, f"invalid duration {text!r}", hint="write it as 30s or 1m30s")
    if total and (total < 10**6 or text.startswith("-")):
        raise wrong(place, f"interval {text!r} cannot be less than 1ms")
    return int(total)


def _onbuild(statement: Statement, escape: str) -> OnBuild:
    text = statement.rest
    keyword = text.split(None, 1)[0]
    options, rest_at = read_options(text, len(keyword), escape)
    base = statement.rest_at
    inner = Statement(
        statement.source,
        text,
        tuple((max(at - base, 0), line, column + max(base - at, 0)) for at, line, column in _within(statement, base)),
        keyword,
        options,
        text[rest_at:],
        rest_at,
        statement.heredocs,
    )
    if inner.name == INCLUDE:
        raise wrong(inner.place(), "INCLUDE isn't allowed as an ONBUILD trigger")
    trigger = instruction(inner, escape)
    _check_trigger(trigger, inner)
    kept = text + "".join(f"\n{heredoc.raw}{heredoc.name}" for heredoc in statement.heredocs)
    return OnBuild(statement, kept, trigger)


def _within(statement: Statement, base: int) -> list[tuple[int, int, int]]:
    """The segments from an offset on."""
    later = [segment for segment in statement.segments if segment[0] > base]
    earlier = [segment for segment in statement.segments if segment[0] <= base]
    return [earlier[-1], *later]


def _check_trigger(trigger: Instruction, statement: Statement) -> None:
    if isinstance(trigger, OnBuild):
        raise wrong(statement.place(), "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if isinstance(trigger, From | Maintainer):
        raise wrong(statement.place(), f"{statement.name} isn't allowed as an ONBUILD trigger")


def heredoc_alone(run: Run) -> Heredoc | None:
    """The here-document that is the whole of a RUN: its content is the script."""
    if len(run.heredocs) != 1 or not run.command.shell:
        return None
    return run.heredocs[0] if re.fullmatch(r"<<(-?|\s+)[^<\s]+", run.command.words[0].strip()) else None


_READERS: Final[dict[str, Callable[[Statement, str], Instruction]]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _one(lambda at, text: Cmd(at, _command_line(at, text))),
    "COPY": _copy,
    "ENTRYPOINT": _one(lambda at, text: Entrypoint(at, _command_line(at, text))),
    "ENV": lambda at, escape: Env(at, *_pairs(at, escape)),
    "EXPOSE": lambda at, _: Expose(at, _plain_words(at)),
    "FROM": _from,
    "HEALTHCHECK": _health,
    "LABEL": lambda at, escape: Label(at, *_pairs(at, escape)),
    "MAINTAINER": _one(Maintainer),
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _one(StopSignal),
    "USER": _one(User),
    "VOLUME": _volume,
    "WORKDIR": _one(Workdir),
}
