"""The flags of `scow build` that hold more than one value: outputs, caches, annotations, agents.

Their words are those of `docker buildx build`; what isn't done is refused by its name.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from scow_plugins.cli._flags import Args, UsageError

if TYPE_CHECKING:
    from scow.engine.builders import BuildOutput, CacheTarget

_TRUE: Final = ("true", "1", "")
_FALSE: Final = ("false", "0")
#: Attributes of outputs, with the values that say what is done anyway; None: any value is taken.
_OUTPUTS: Final[Mapping[str, Mapping[str, tuple[str, ...] | None]]] = {
    "image": {"name": None, "push": None, "oci-mediatypes": _TRUE, "unpack": _TRUE, "store": _TRUE},
    "docker": {"name": None, "dest": None, "tar": _TRUE, "oci-mediatypes": _TRUE},
    "oci": {"name": None, "dest": None, "tar": None, "oci-mediatypes": _TRUE},
    "tar": {"dest": None},
    "local": {"dest": None, "platform-split": _FALSE},
    "none": {},
}
_COMPRESSION: Final = ("compression", "compression-level", "force-compression")
_KINDS: Final = {"registry": "image", "cacheonly": "none"}


def fields(flag: str, text: str) -> dict[str, str]:
    """`type=x,key=value` in the form of CSV. Raises UsageError."""
    found: dict[str, str] = {}
    for row in csv.reader([text]):
        for field in row:
            name, equals, value = field.partition("=")
            name = name.strip().lower() if not name.strip().lower().startswith("annotation") else name.strip()
            if not equals or not name:
                raise UsageError(f'invalid argument "{text}" for "{flag}" flag: write key=value, not {field}')
            found[name] = value
    return found


def truth(flag: str, name: str, value: str) -> bool:
    """A value that is true or false. Raises UsageError."""
    if value.lower() in _TRUE:
        return True
    if value.lower() in _FALSE:
        return False
    raise UsageError(f'invalid argument "{name}={value}" for "{flag}" flag: write true or false')


def outputs(args: Args, stdout: str) -> tuple[BuildOutput, ...]:
    """--output, --push and --load. `stdout`: a path for what goes to standard output. Raises UsageError."""
    from scow.engine.builders import BuildOutput

    found = [_output(text, stdout) for text in args.all("output")]
    if args.on("push"):
        pushing = [number for number, output in enumerate(found) if output.keeps]
        if pushing:
            first = found[pushing[0]]
            found[pushing[0]] = BuildOutput("image", names=first.names, push=True, annotations=first.annotations)
        else:
            found.append(BuildOutput("image", push=True))
    if args.on("load") and not any(output.keeps for output in found):
        found.append(BuildOutput("image"))
    if sum(output.dest == stdout for output in found) > 1:
        raise UsageError("only one output can go to standard output")
    return tuple(found)


def _output(text: str, stdout: str) -> BuildOutput:
    from scow.engine.builders import BuildOutput

    if "=" not in text:
        # A directory, or `-` for an archive of the files.
        return BuildOutput("tar", stdout) if text == "-" else BuildOutput("local", text)
    values = fields("-o, --output", text)
    said = values.pop("type", "")
    kind = _KINDS.get(said, said)
    if kind not in _OUTPUTS:
        names = ", ".join((*_OUTPUTS, *_KINDS)).replace("none, ", "")
        raise UsageError(f'invalid argument "{text}" for "-o, --output" flag: type is one of {names}')
    notes = {name: values.pop(name) for name in list(values) if name.startswith("annotation")}
    if said == "registry":
        values.setdefault("push", "true")
    _checked(said, text, values)
    dest = values.get("dest", "")
    if kind in ("tar", "local", "oci") and not dest:
        raise UsageError(f"--output type={kind} needs dest=PATH" + ("" if kind == "local" else ", or dest=-"))
    if dest == "-" and kind == "local":
        raise UsageError("--output type=local can't go to standard output", hint="type=tar can")
    directory = kind == "oci" and not truth("--output", "tar", values.get("tar", "true"))
    if dest == "-" and directory:
        raise UsageError("--output type=oci,tar=false can't go to standard output")
    return BuildOutput(
        kind,  # type: ignore[arg-type]
        stdout if dest == "-" else dest,
        tuple(name for name in values.get("name", "").split(",") if name),
        truth("--output", "push", values.get("push", "false")),
        directory,
        {_annotated(name): value for name, value in notes.items()},
    )


def _checked(said: str, text: str, values: Mapping[str, str]) -> None:
    known = _OUTPUTS[_KINDS.get(said, said)]
    for name, value in values.items():
        if name in _COMPRESSION:
            if name == "compression" and value == "uncompressed":
                continue
            raise UsageError(
                f"{name}={value} of --output is not supported by scow", hint="layers go out as they are: not compressed"
            )
        if name not in known:
            raise UsageError(f'{name} of --output type={said} is not supported by scow: "{text}"')
        allowed = known[name]
        if allowed is not None and value.lower() not in allowed:
            raise UsageError(f"{name}={value} of --output type={said} is not supported by scow")


def _annotated(name: str) -> str:
    kind, dot, key = name.partition(".")
    if kind not in ("annotation", "annotation-manifest") or not dot or not key:
        raise UsageError(f"{name} of --output is not supported by scow", hint="annotations go to the manifest")
    return key


def manifest_annotations(args: Args) -> dict[str, str]:
    """--annotation, of the manifest. Raises UsageError for those of what a build for one platform doesn't have."""
    found = {}
    for text in args.all("annotation"):
        name, equals, value = text.partition("=")
        kinds, colon, key = name.partition(":")
        if not colon or any(each.strip() not in _LEVELS for each in kinds.partition("[")[0].split(",")):
            kinds, key = "manifest", name
        if not equals or not key:
            raise UsageError(f'invalid argument "{text}" for "--annotation" flag: write key=value')
        for kind in kinds.partition("[")[0].split(","):
            if kind.strip() != "manifest":
                raise UsageError(
                    f"annotations of the {kind.strip()} are not supported by scow",
                    hint="an image for one platform has no index; write manifest:key=value",
                )
        found[key] = value
    return found


def cache_from(args: Args) -> tuple[str, ...]:
    """--cache-from as references. Raises UsageError."""
    found = []
    for text in args.all("cache-from"):
        kind, values = _cache("--cache-from", text, {"registry": {"ref"}, "local": {"src", "tag"}})
        found.append(values["ref"] if kind == "registry" else _layout("--cache-from", text, values, "src"))
    return tuple(found)


def cache_to(args: Args) -> tuple[CacheTarget, ...]:
    """--cache-to. Raises UsageError."""
    from scow.engine.builders import CacheTarget

    more = {"mode", "ignore-error", *_COMPRESSION, "oci-mediatypes", "image-manifest"}
    found = []
    for text in args.all("cache-to"):
        known = {"registry": {"ref", *more}, "local": {"dest", "tag", *more}, "inline": set[str]()}
        kind, values = _cache("--cache-to", text, known)
        if kind == "inline":
            found.append(CacheTarget("inline"))
            continue
        for name, value in values.items():
            if name in _COMPRESSION and (name, value) != ("compression", "uncompressed"):
                raise UsageError(f"{name}={value} of --cache-to is not supported by scow")
            if name in ("oci-mediatypes", "image-manifest") and not truth("--cache-to", name, value):
                raise UsageError(f"{name}={value} of --cache-to is not supported by scow", hint="caches are OCI images")
        if (mode := values.get("mode", "min")) not in ("min", "max"):
            raise UsageError(f'invalid argument "{text}" for "--cache-to" flag: mode is min or max')
        place = values["ref"] if kind == "registry" else _layout("--cache-to", text, values, "dest")
        ignore = truth("--cache-to", "ignore-error", values.get("ignore-error", "false"))
        found.append(CacheTarget("image", place, mode == "max", ignore))
    return tuple(found)


def _cache(flag: str, text: str, known: Mapping[str, set[str]]) -> tuple[str, dict[str, str]]:
    """A cache's type, and its attributes."""
    if "=" not in text:
        return "registry", {"ref": text}
    values = fields(flag, text)
    kind = values.pop("type", "")
    if kind not in known:
        raise UsageError(
            f"type={kind} of {flag} is not supported by scow", hint=f"there are {', '.join(known)}: type=registry,ref=…"
        )
    for name in values:
        if name not in known[kind]:
            raise UsageError(f"{name} of {flag} type={kind} is not supported by scow")
    if kind == "registry" and not values.get("ref"):
        raise UsageError(f'invalid argument "{text}" for "{flag}" flag: write type=registry,ref=NAME')
    return kind, values


def _layout(flag: str, text: str, values: Mapping[str, str], name: str) -> str:
    place = values.get(name, "")
    if not place or ":" in place:
        raise UsageError(f'invalid argument "{text}" for "{flag}" flag: write type=local,{name}=DIRECTORY')
    return f"oci:{place}:{values.get('tag') or 'latest'}"


def agents(args: Args, environ: Mapping[str, str]) -> dict[str, str]:
    """--ssh: sockets of agents by id. Raises UsageError."""
    found = {}
    for text in args.all("ssh"):
        name, _, place = text.partition("=")
        place = place or environ.get("SSH_AUTH_SOCK", "")
        if not name:
            raise UsageError(f'invalid argument "{text}" for "--ssh" flag: write default, or id=SOCKET')
        if not place:
            raise UsageError(
                f"--ssh {text}: there is no SSH agent", hint="SSH_AUTH_SOCK is not set: eval $(ssh-agent); ssh-add"
            )
        if "," in place or not _is_socket(place):
            raise UsageError(
                f"--ssh {text}: {place} is not the socket of an SSH agent",
                hint="key files are not read: give them to an agent with ssh-add",
            )
        found[name] = place
    return found


def _is_socket(path: str) -> bool:
    import os
    import stat

    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def entitlements(args: Args) -> frozenset[str]:
    """--allow. Raises UsageError."""
    found = frozenset(name for text in args.all("allow") for name in text.split(",") if name)
    for name in sorted(found - {"network.host", "security.insecure"}):
        raise UsageError(f"--allow {name} is not supported by scow", hint="there are network.host, security.insecure")
    return found


_LEVELS: Final = ("manifest", "index", "manifest-descriptor", "index-descriptor")


def check_attestations(args: Args) -> None:
    """`--provenance=false` and `--sbom=false` say what is so anyway; any other is refused. Raises UsageError."""
    for flag in ("provenance", "sbom"):
        text = args.text(flag)
        if text is not None and text.lower() not in ("false", "0", "disabled=true"):
            raise UsageError(f"--{flag}={text} is not supported by scow", hint="images have no attestations")
    for text in args.all("attest"):
        values = fields("--attest", text)
        if values.get("disabled", "").lower() not in ("true", "1"):
            raise UsageError(f"--attest {text} is not supported by scow", hint="images have no attestations")
