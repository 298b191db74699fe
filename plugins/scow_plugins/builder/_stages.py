"""Stages: which instructions belong together, and what they need of each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from scow.api import Invalid, Platform, parse_named
from scow_plugins.builder._expand import Expander, ExpandError
from scow_plugins.builder._include import Fetch
from scow_plugins.builder._instructions import Arg, Copy, From, Instruction, OnBuild, Run
from scow_plugins.builder._parse import parse
from scow_plugins.builder._reader import File
from scow_plugins.builder._source import Place, wrong

#: May be given with --build-arg and used by RUN without an ARG; neither key nor history shows them.
PROXIES: Final = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
#: Arguments that mean something to the builder itself.
BUILTIN: Final = frozenset(
    {
        "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", "BUILDKIT_INLINE_CACHE",
        "BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SYNTAX", "BUILDKIT_BUILD_NAME",
        "SOURCE_DATE_EPOCH",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """One FROM and what follows it."""

    index: int
    start: From
    body: tuple[Instruction, ...]

    @property
    def name(self) -> str:
        """Its name in small letters; its number where it has none."""
        return self.start.name.lower() or str(self.index)


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A file that was understood."""

    file: File
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]

    def find(self, name: str, before: int | None = None) -> Stage | None:
        """The last stage of a name, among those before a number; a number means itself."""
        stages = self.stages[:before]
        named = next((stage for stage in reversed(stages) if stage.start.name.lower() == name.lower() != ""), None)
        if named is None and name.isascii() and name.isdigit() and int(name) < len(stages):
            return stages[int(name)]
        return named


def understand(
    data: bytes, name: str = "Dockerfile", fetch: Fetch | None = None, *, include: bool = False
) -> Dockerfile:
    """Read a Dockerfile into its stages; `fetch` gives files that it includes. Raises Invalid, Unsupported."""
    file, instructions = parse(data, name, fetch, include=include)
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for each in instructions:
        if isinstance(each, From):
            stages.append((each, []))
        elif stages:
            stages[-1][1].append(each)
        elif isinstance(each, Arg):
            arguments.append(each)
        else:
            raise wrong(
                each.at.place(0, len(each.at.keyword)),
                f"no build stage in current context: {each.at.name} comes before the first FROM",
            )
    if not stages:
        if not file.statements:
            raise wrong(Place(file.source, 0), "the file has no instructions")
        raise wrong(file.statements[-1].place(), "the file has no FROM", hint="begin with FROM image, or FROM scratch")
    return Dockerfile(
        file, tuple(arguments), tuple(Stage(index, start, tuple(body)) for index, (start, body) in enumerate(stages))
    )


def platform_arguments(target: Platform, build: Platform, stage: str = "") -> dict[str, str]:
    """TARGETPLATFORM and its kin (dockerfile reference, "Automatic platform ARGs in the global scope"), TARGETSTAGE."""
    found = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("TARGET", target), ("BUILD", build)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return found


@dataclass(frozen=True, slots=True)
class Globals:
    """The global scope: arguments before the first FROM, and those of the platform; `given` are --build-arg's."""

    values: Mapping[str, str]
    given: Mapping[str, str]


def global_scope(dockerfile: Dockerfile, given: Mapping[str, str], automatic: Mapping[str, str]) -> Globals:
    """Values of the ARGs before the first FROM. Raises Invalid."""
    values = dict(automatic) | {name: value for name, value in given.items() if name in automatic}
    for argument in dockerfile.arguments:
        for name, default in argument.values:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                values[name] = expanded(Expander(values, dockerfile.file.escape), default, argument)
            elif name not in automatic:
                values.pop(name, None)
    return Globals(values, given)


def expanded(expander: Expander, text: str, said: Instruction) -> str:
    """One word of an instruction with its variables replaced. Raises Invalid."""
    try:
        return expander.word(text)
    except ExpandError as error:
        raise wrong(said.at.find(text), f"failed to process {text!r}: {error.message}") from None


@dataclass(frozen=True, slots=True)
class Start:
    """What a stage begins with: another stage, nothing (`scratch`), or an image of this name."""

    kind: str
    image: str = ""
    stage: int = -1
    platform: Platform | None = None
    #: It is the stage, whatever the file says about it.
    whole: bool = False


def context_name(text: str) -> str:
    """What a name is looked up by among the named contexts: Docker's familiar form, without `latest`."""
    try:
        return parse_named(text.lower() if "/" not in text else text).familiar.removesuffix(":latest")
    except Invalid:
        return text


def starts(dockerfile: Dockerfile, scope: Globals, contexts: Iterable[str] = ()) -> tuple[Start, ...]:
    """What each stage begins with. `contexts`: names that stand for something else than an image. Raises Invalid.

    A context with the name of the stage itself stands for all of it.
    """
    named = set(contexts)
    found = []
    for stage in dockerfile.stages:
        start = stage.start
        image = expanded(Expander(scope.values, dockerfile.file.escape), start.image, start)
        text = expanded(Expander(scope.values, dockerfile.file.escape), start.platform, start)
        if not image:
            raise wrong(start.at.place_of_rest, f"base name ({start.image}) should not be blank")
        try:
            platform = Platform.parse(text) if text else None
        except Invalid as error:
            raise wrong(start.at.find("--platform", 0), error.message, hint=error.hint) from None
        earlier = dockerfile.find(image, stage.index) if not image.isdigit() else None
        if start.name and context_name(start.name) in named:
            found.append(Start("context", context_name(start.name), platform=platform, whole=True))
        elif (context := context_name(image)) in named:
            found.append(Start("context", context, platform=platform))
        elif earlier is not None:
            found.append(Start("stage", image, earlier.index, platform))
        else:
            found.append(Start("scratch" if image == "scratch" else "image", image, platform=platform))
    return tuple(found)


def references(instructions: Iterable[Instruction]) -> Iterable[tuple[str, Instruction]]:
    """Names after `--from=` and `from=` in instructions."""
    for each in instructions:
        if isinstance(each, OnBuild):
            continue
        if isinstance(each, Copy) and each.stage:
            yield each.stage, each
        elif isinstance(each, Run):
            for mount in each.mounts:
                if name := mount.get("from"):
                    yield name, each


def wanted_stage(dockerfile: Dockerfile, target: str) -> Stage:
    """The stage to build: the last one, or that of --target. Raises Invalid."""
    if not target:
        return dockerfile.stages[-1]
    found = dockerfile.find(target)
    if found is None:
        names = ", ".join(stage.name for stage in dockerfile.stages)
        raise Invalid(f"target stage {target!r} could not be found", hint=f"there are: {names}")
    return found


def check_index(dockerfile: Dockerfile, name: str, said: Instruction) -> None:
    """A number must be a stage's. Raises Invalid."""
    if name.isascii() and name.isdigit() and dockerfile.find(name) is None:
        raise wrong(said.at.find(name, 0), f"invalid stage index {name}: there are {len(dockerfile.stages)} stages")
