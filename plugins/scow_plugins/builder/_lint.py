"""The checks of `docker build --check`: rules with Docker's own names, each over the file as it was read.

Complaints, never errors: a file that passes none of them may still build.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from scow.api import Invalid, Platform, ScowError
from scow.engine.builders import Finding
from scow_plugins.builder._expand import Expander, ExpandError
from scow_plugins.builder._ignore import Ignore, read_patterns
from scow_plugins.builder._instructions import (
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Shell,
    Workdir,
)
from scow_plugins.builder._plan import Options, scope_of
from scow_plugins.builder._source import Place, Statement
from scow_plugins.builder._stages import BUILTIN, PROXIES, Dockerfile, Stage, platform_arguments, starts
from scow_plugins.builder._state import StageState
from scow_plugins.builder._steps import Origin

_URL: Final = "https://docs.docker.com/go/dockerfile/rule/"
_SECRET: Final = re.compile(r"(?i)(?:^|_)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)")
_PUBLIC: Final = re.compile(r"(?i)(?:^|_)public(?:_|$)")
_EXPERIMENTAL: Final = frozenset({"InvalidDefinitionDescription"})
_TARGETS: Final = frozenset({"$TARGETPLATFORM", "${TARGETPLATFORM}"})
_SKIP: Final = re.compile(r"#\s*check\s*=\s*skip\s*=\s*([\w, ]+?)\s*(?://.*)?")
_ADDRESS: Final = re.compile(r"(?:\[[^]]*\]|[^:]*):.*")

Found = Iterator[tuple[str, str, Place]]
#: Gives an image's configuration, None when it isn't known here.
Known = Callable[[str], Mapping[str, Any] | None]


def lint(
    dockerfile: Dockerfile,
    options: Options,
    ignore: bytes = b"",
    known: Known = lambda _: None,
    more: Iterable[tuple[str, str, Place]] = (),
) -> tuple[Finding, ...]:
    """All complaints, by line, those of included files behind; `more` are others'.

    Rules that the file skips, or the comment above an instruction for it alone, are left out.
    """
    file = dockerfile.file
    found = []
    locally = [(each, names) for each in file.statements if (names := _skipped_by(each))]
    for rule, message, place in (*_all(dockerfile, options, ignore, known), *more):
        skipped = rule in file.skip or "all" in file.skip
        skipped = skipped or any(
            place.source is each.source and place.line in each.lines and (rule in names or "all" in names)
            for each, names in locally
        )
        if skipped or (rule in _EXPERIMENTAL and rule not in file.experimental and "all" not in file.experimental):
            continue
        slug = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", rule).lower()
        name = "" if place.source is file.source else place.source.name
        found.append(Finding(rule, message, place.line, place.shown(), f"{_URL}{slug}/", name))
    return tuple(sorted(dict.fromkeys(found), key=lambda each: (each.file, each.line)))


def _skipped_by(said: Statement) -> frozenset[str]:
    """Rules that comments above an instruction skip: `# check=skip=Rule,Rule // why`."""
    found = (_SKIP.fullmatch(line) for line in said.comments)
    return frozenset(name.strip() for match in found if match for name in match[1].split(","))


def violation(findings: Sequence[Finding], name: str) -> Invalid:
    """What `# check=error=true` makes of complaints, each with its place; `name` is the Dockerfile's own."""
    rules = ", ".join(sorted({each.rule for each in findings}))
    shown = (f"\n{each.file or name}:{each.line}: {each.rule}: {each.message}\n{each.shown}" for each in findings)
    return Invalid(f"lint violation found for rules: {rules}" + "".join(shown))


def _all(dockerfile: Dockerfile, options: Options, ignore: bytes, known: Known) -> Found:
    yield from _casing(dockerfile)
    for place in dockerfile.file.empty_lines:
        yield "NoEmptyContinuation", "Empty continuation line", place
    yield from _stage_names(dockerfile)
    yield from _froms(dockerfile, options)
    shells = _shells(dockerfile, options, known)
    for stage in dockerfile.stages:
        yield from _in_stage(dockerfile, stage, shell_said=stage.index in shells)
        yield from _copies(stage, ignore)
    yield from _variables(dockerfile, options, known)
    yield from _descriptions(dockerfile)


def _keyword(said: Instruction) -> Place:
    return said.at.place(0, len(said.at.keyword))


def _casing(dockerfile: Dockerfile) -> Found:
    statements = dockerfile.file.statements
    lower = sum(each.keyword.islower() for each in statements)
    upper = sum(each.keyword.isupper() for each in statements)
    majority = "lowercase" if lower > upper else "uppercase"
    for each in statements:
        wanted = each.keyword.lower() if lower > upper else each.keyword.upper()
        if each.keyword != wanted:
            message = f"Command '{each.keyword}' should match the case of the command majority ({majority})"
            yield "ConsistentInstructionCasing", message, each.place(0, len(each.keyword))


def _stage_names(dockerfile: Dockerfile) -> Found:
    seen: set[str] = set()
    for stage in dockerfile.stages:
        start, name = stage.start, stage.start.name
        if not name:
            continue
        words = start.at.rest.split()
        word = words[1] if len(words) == 3 else "AS"
        after = start.at.text.rfind(word)
        place = start.at.find(name, after)
        if name != name.lower():
            yield "StageNameCasing", f"Stage name '{name}' should be lowercase", place
        if word.isupper() != start.at.keyword.isupper():
            message = f"'{word}' and '{start.at.keyword}' keywords' casing do not match"
            yield "FromAsCasing", message, start.at.find(word, after)
        if name.lower() in seen:
            yield "DuplicateStageName", f'Duplicate stage name "{name}", stage names should be unique', place
        seen.add(name.lower())
        if name.lower() in ("scratch", "context"):
            message = f'Stage name should not use the same name as reserved stage "{name.lower()}"'
            yield "ReservedStageName", message, place


def _froms(dockerfile: Dockerfile, options: Options) -> Found:
    automatic = platform_arguments(options.platform, options.build_platform, options.target)
    declared = {name for each in dockerfile.arguments for name, _ in each.values} | set(automatic)
    for stage in dockerfile.stages:
        start = stage.start
        for text in (start.image, start.platform):
            for name in _used(text, dockerfile.file.escape):
                if name not in declared:
                    message = f"FROM argument '{name}' is not declared" + _suggestion(name, declared)
                    yield "UndefinedArgInFrom", message, start.at.find(text, 0)
        if start.platform in _TARGETS:
            message = (
                f"Setting platform to predefined {start.platform} in FROM is redundant as this is the default behavior"
            )
            yield "RedundantTargetPlatform", message, start.at.find(start.platform, 0)
        elif start.platform and "$" not in start.platform and not _named_after(start.platform, start.name):
            message = f'FROM --platform flag should not use constant value "{start.platform}"'
            yield "FromPlatformFlagConstDisallowed", message, start.at.find(start.platform, 0)
        yield from _default_from(dockerfile, stage, automatic)


def _named_after(platform: str, stage: str) -> bool:
    """Whether a stage's name says that it is for a platform: then a constant one is meant. Also for what is none."""
    try:
        wanted = Platform.parse(platform)
    except ScowError:
        return True
    return wanted.os in stage.lower() or wanted.architecture in stage.lower()


def _default_from(dockerfile: Dockerfile, stage: Stage, automatic: Mapping[str, str]) -> Found:
    """A base that is nothing unless --build-arg says what."""
    values = dict(automatic)
    for each in dockerfile.arguments:
        for name, default in each.values:
            try:
                values[name] = Expander(values, dockerfile.file.escape).word(default or "")
            except ExpandError:
                values[name] = ""
    image = stage.start.image
    if "$" not in image:
        return
    try:
        base = Expander(values, dockerfile.file.escape).word(image)
    except ExpandError:
        return
    if not base or base.startswith(":") or base.endswith((":", "@", "/")):
        message = f"Default value for ARG {image} results in empty or invalid base image name"
        yield "InvalidDefaultArgInFrom", message, stage.start.at.find(image, 0)


def _shells(dockerfile: Dockerfile, options: Options, known: Known) -> set[int]:
    """Stages whose base says which shell it wants."""
    try:
        beginnings = starts(dockerfile, scope_of(dockerfile, options), options.contexts)
    except ScowError:
        return set()
    found: set[int] = set()
    for stage, start in zip(dockerfile.stages, beginnings, strict=True):
        if start.kind == "stage":
            below = dockerfile.stages[start.stage].body
            said = start.stage in found or any(isinstance(each, Shell) for each in below)
        else:
            config = known(start.image) if start.kind == "image" else None
            said = bool(((config or {}).get("config") or {}).get("Shell"))
        if said:
            found.add(stage.index)
    return found


def _in_stage(dockerfile: Dockerfile, stage: Stage, *, shell_said: bool) -> Found:
    last: dict[type, Instruction] = {}
    absolute = dockerfile.find(stage.start.image, stage.index) is not None
    for each in stage.body:
        match each:
            case Maintainer():
                message = "Maintainer instruction is deprecated in favor of using label"
                yield "MaintainerDeprecated", message, _keyword(each)
            case Shell():
                shell_said = True
            case Workdir() if each.path.startswith(("/", "$", '"/', "'/")):
                absolute = True
            case Workdir() if not absolute:
                message = f'Relative workdir "{each.path}" can have unexpected results if the base image changes'
                yield "WorkdirRelativePath", message, each.at.place_of_rest
            case Env() | Label() if each.legacy:
                name = each.at.name
                message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
                yield "LegacyKeyValueFormat", message, each.at.place_of_rest
            case Expose():
                yield from _exposed(each)
        if isinstance(each, Cmd | Entrypoint) and each.command.shell and not shell_said:
            message = (
                f"JSON arguments recommended for {each.at.name} to prevent unintended behavior related to OS signals"
            )
            yield "JSONArgsRecommended", message, each.at.place_of_rest
        if isinstance(each, Cmd | Entrypoint | Healthcheck):
            if (before := last.get(type(each))) is not None:
                message = (
                    f"Multiple {each.at.name} instructions should not be used in the same stage because only the last "
                    "one will be used"
                )
                yield "MultipleInstructionsDisallowed", message, _keyword(before)
            last[type(each)] = each
        if isinstance(each, Env | Arg):
            for name, _ in each.values:
                if _SECRET.search(name) and not _PUBLIC.search(name):
                    message = f'Do not use ARG or ENV instructions for sensitive data ({each.at.name} "{name}")'
                    yield "SecretsUsedInArgOrEnv", message, each.at.find(name)


def _exposed(said: Expose) -> Found:
    for port in said.ports:
        if _ADDRESS.fullmatch(port) and "$" not in port:
            message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
            yield "ExposeInvalidFormat", message, said.at.find(port)
        protocol = port.partition("/")[2]
        if protocol != protocol.lower() and "$" not in protocol:
            message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
            yield "ExposeProtoCasing", message, said.at.find(port)


def _copies(stage: Stage, patterns: bytes) -> Found:
    if not patterns.strip():
        return
    try:
        ignore = Ignore(read_patterns(patterns))
    except ScowError:
        return
    for each in stage.body:
        if not isinstance(each, Copy) or each.stage:
            continue
        for source in each.sources:
            clean = posixpath.normpath(source.strip("\"'").lstrip("/") or ".")
            if "://" in source or "$" in source or re.search(r"[*?\[]", clean) or clean == ".":
                continue
            if ignore.ignores(clean) and ignore.skips_tree(clean):
                message = f'Attempting to {each.at.name.capitalize()} file "{source}" that is excluded by .dockerignore'
                yield "CopyIgnoredFile", message, each.at.find(source)


def _variables(dockerfile: Dockerfile, options: Options, known: Known) -> Found:
    """Variables that nothing has set. What an image that isn't here sets can't be known: its stages are left out."""
    try:
        scope = scope_of(dockerfile, options)
        beginnings = starts(dockerfile, scope, options.contexts)
    except ScowError:
        return
    states: dict[int, StageState | None] = {}
    for stage, start in zip(dockerfile.stages, beginnings, strict=True):
        state = StageState(scope, dockerfile.file.escape, lambda name, _: Origin("image", name))
        below = states.get(start.stage) if start.kind == "stage" else None
        config = known(start.image) if start.kind == "image" else None
        sure = start.kind == "scratch" or config is not None or below is not None
        if below is not None:
            state.begin(below.config, inherited=below)
        else:
            state.begin((config or {}).get("config") or {})
        for each in stage.body:
            try:
                state.read(each)
            except ScowError:
                continue
        states[stage.index] = state if sure else None
        if not sure:
            continue
        names = set(state.env) | set(state.args)
        for name, place in state.missing:
            if name in PROXIES or name in BUILTIN or state.args.get(name, "") is None:
                continue
            yield "UndefinedVar", f"Usage of undefined variable '${name}'" + _suggestion(name, names), place


def _suggestion(name: str, names: set[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close and close[0] != name else ""


def _used(text: str, escape: str) -> set[str]:
    expander = Expander({}, escape)
    try:
        expander.word(text)
    except ExpandError:
        return set()
    return set(expander.missing)


def _descriptions(dockerfile: Dockerfile) -> Found:
    """A comment above a stage or an argument describes it, and begins with its name."""
    said: list[tuple[list[str], Instruction]] = []
    for stage in dockerfile.stages:
        if stage.start.name:
            said.append(([stage.start.name.lower()], stage.start))
        said += [([name for name, _ in each.values], each) for each in stage.body if isinstance(each, Arg)]
    said += [([name for name, _ in each.values], each) for each in dockerfile.arguments]
    for names, each in said:
        comments = [line for line in each.at.comments if not _SKIP.fullmatch(line)]
        if not comments or comments[-1].lstrip("#").strip().partition(" ")[0] in ("", *names):
            continue
        name = names[0] if len(names) == 1 else "<arg_key>"
        message = f"Comment for {each.at.name} should follow the format: `# {name} <description>`"
        yield "InvalidDefinitionDescription", message, _keyword(each)
