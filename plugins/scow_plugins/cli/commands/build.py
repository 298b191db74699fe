"""`scow build`: make an image of a Dockerfile."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scow_plugins.cli._buildflags import (
    agents,
    cache_from,
    cache_to,
    check_attestations,
    entitlements,
    manifest_annotations,
    outputs,
)
from scow_plugins.cli._cli import Cli
from scow_plugins.cli._files import read_named
from scow_plugins.cli._flags import Args, Command, Flag, UsageError
from scow_plugins.cli._ulimits import ulimits

if TYPE_CHECKING:
    from scow.engine.builders import BuildRequest, BuildResult, Finding

COMMAND = Command(
    "[OPTIONS] PATH | URL | -",
    (
        Flag(
            "file",
            "Name of the Dockerfile (default: that of the context; - is standard input)",
            "string",
            short="f",
        ),
        Flag("tag", "Name of the image, name:tag", "list", short="t"),
        Flag("target", "The stage to build", "string"),
        Flag("build-arg", "Set a variable of the build, NAME=value", "list"),
        Flag(
            "build-context",
            "Another context, name=directory, name=URL, name=docker-image://image or name=oci-layout://directory",
            "list",
        ),
        Flag("label", "Set metadata of the image", "list"),
        Flag("secret", "A secret for the build, id=name[,src=file|,env=variable]", "list"),
        Flag("ssh", "An SSH agent for the build, default or id=SOCKET", "list"),
        Flag("allow", "Let steps have more than containers: security.insecure, network.host", "list"),
        Flag("network", "Network of RUN: default, none or host", "string", default="default"),
        Flag("add-host", "Add a line to /etc/hosts of RUN, name:address", "list"),
        Flag("platform", "Platform of the image", "string"),
        Flag("shm-size", "Size of /dev/shm in RUN", "bytes"),
        Flag("ulimit", "Limit of each process in RUN, name=soft[:hard]; -1: unlimited", "list"),
        Flag("cgroup-parent", "Control group above those of RUN, as a path from the root", "string"),
        Flag("no-cache", "Do every step again"),
        Flag("no-cache-filter", "Do every step of these stages again", "list"),
        Flag("pull", "Insist on looking for newer base images; --pull=false: take those that are here"),
        Flag("progress", "auto, plain, tty, rawjson or quiet", "string", default="auto"),
        Flag("quiet", "Print the image's ID only", short="q"),
        Flag("include", "Let INCLUDE FILE be an instruction, also where the Dockerfile has no `# scow=include`"),
        Flag("iidfile", "Write the image's ID to a file", "string"),
        Flag("check", "Check the Dockerfile, build nothing"),
        Flag("print", "Print the plan, build nothing: plan", "string"),
        Flag("explain", "Say of each step that isn't from the cache what has changed"),
        Flag("on-error", "shell: a shell in the files of a RUN that failed", "string"),
        Flag("break", "A shell before the step on this line", "list"),
        Flag("metadata-file", "Write digests of the image to a file, as JSON", "string"),
        Flag(
            "output", "Where the result goes: DIRECTORY, -, or type=image|docker|oci|tar|local|registry,…", "list", "o"
        ),
        Flag("load", "Keep the image here, whatever --output says (without it, it is kept)"),
        Flag("push", "Send the image to the registries that its names say"),
        Flag("cache-from", "Use a cache: NAME, or type=registry,ref=NAME, or type=local,src=DIRECTORY", "list"),
        Flag("cache-to", "Write a cache: NAME, or type=registry|local|inline,…,mode=min|max", "list"),
        Flag("annotation", "Set metadata of the manifest, [manifest:]key=value", "list"),
        Flag("provenance", "false: images have no attestations", "string"),
        Flag("sbom", "false: images have no attestations", "string"),
        Flag("attest", "type=TYPE,disabled=true: images have no attestations", "list"),
        # Accepted as by buildx: nothing of a step stays anyway, and the context isn't sent anywhere.
        Flag("rm", "Changes nothing: no container of a step stays"),
        Flag("force-rm", "Changes nothing: no container of a step stays"),
        Flag("compress", "Changes nothing: the context isn't sent anywhere"),
        Flag("storage", "Build with this mount plugin", "string"),
        Flag("runtime", "Run steps with this exec plugin", "string"),
    ),
    least=1,
    most=1,
    refused={
        "--squash": "a multi-stage build keeps only what is copied",
    },
)
_STYLES: Final = ("auto", "plain", "tty", "rawjson", "quiet")
#: user@host:path, as scp(1) has it.
#: Bytes of a Dockerfile or an ignore file; of a secret (BuildKit's own bound).
_FILE_MAX: Final = 16 << 20
_SECRET_MAX: Final = 500 << 10
_SCP: Final = re.compile(r"[A-Za-z0-9._~-]+@[A-Za-z0-9.-]+:")


async def main(cli: Cli, args: Args) -> int:
    """Prints the image's ID, unless a result goes to standard output or is no image."""
    style = "quiet" if args.on("quiet") else args.text("progress") or "auto"
    if style not in _STYLES:
        raise UsageError(f'invalid argument "{style}" for "--progress" flag: write {", ".join(_STYLES)}')
    if args.text("print") not in (None, "plan"):
        raise UsageError(f'invalid argument "{args.text("print")}" for "--print" flag: write plan')
    if args.on("push") and not args.all("tag") and not any("name=" in each for each in args.all("output")):
        raise UsageError("--push needs a name: -t name")
    check_attestations(args)
    from functools import partial

    from scow_plugins.cli._stopping import stoppable

    with _standard_output(cli, args) as stdout:
        return await stoppable(partial(_main, cli, args, style, stdout))


async def _main(cli: Cli, args: Args, style: str, stdout: str) -> int:
    import trio

    from scow.engine.builders import find_builder
    from scow_plugins.cli._buildshell import shells, shells_wanted
    from scow_plugins.cli._buildview import viewing

    wanted = shells_wanted(cli, args, style)
    if _may_block(args):
        request = await trio.to_thread.run_sync(build_request, cli, args, stdout)
    else:
        request = build_request(cli, args, stdout)
    builder = find_builder()
    async with (
        cli.engine() as engine,
        engine.workbench(storage=args.text("storage"), runtime=args.text("runtime")) as bench,
        builder.prepared(bench, request) as request,
    ):
        if args.on("check"):
            return _checked(cli, builder.check(bench, request), request)
        if args.text("print"):
            import json

            cli.out(json.dumps(await builder.plan(bench, request), indent=2))
            return 0
        findings: tuple[Finding, ...] = ()
        try:
            async with viewing(cli, style, explain=args.on("explain")) as view:
                if wanted:
                    request = replace(request, shells=shells(cli, args, view))
                try:
                    result = await builder.build(bench, request, view.take)
                finally:
                    findings = view.findings
                    view.warned(findings, request.file_name)
        finally:
            # Beside an error, too: they may say what is wrong.
            _count(cli, style, findings)
    _report(cli, args, style, result, request, stdout)
    return 0


@contextmanager
def _standard_output(cli: Cli, args: Args) -> Iterator[str]:
    """A path for what goes to standard output; empty when nothing does. Raises UsageError for a terminal."""
    if not any(text == "-" or "dest=-" in text.split(",") for text in args.all("output")):
        yield ""
        return
    if cli.is_tty(cli.stdout):
        raise UsageError("refusing to write an archive to a terminal", hint="redirect the output")
    from scow_plugins.cli._through import Through

    with Through(cli) as inlet:
        yield inlet


def _count(cli: Cli, style: str, findings: tuple[Finding, ...]) -> None:
    if style in ("auto", "plain", "tty") and findings:
        many = len(findings)
        cli.err(f"{many} warning{'s' if many != 1 else ''} found (use --check to see them)")
        for each in findings:
            if each.rule == "InvalidBaseImagePlatform":  # --check looks at no registry
                cli.err(f" - {each.rule}: {each.message}")


def _report(cli: Cli, args: Args, style: str, result: BuildResult, request: BuildRequest, stdout: str) -> None:
    if style in ("auto", "plain", "tty"):
        for name in request.names if result.image is not None else ():
            cli.err(f"named {name}")
        for name, digest in result.pushed:
            cli.err(f"pushed {name}: {digest}")
    if path := args.text("iidfile"):
        _write(path, str(result.id))
    if path := args.text("metadata-file"):
        import json

        data: dict[str, Any] = {
            "containerimage.config.digest": str(result.id),
            "containerimage.digest": str(result.digest),
            "image.name": ",".join(args.all("tag")),
        }
        if (manifest := result.descriptor) is not None:
            data["containerimage.descriptor"] = {
                "mediaType": manifest.media_type,
                "digest": str(manifest.digest),
                "size": manifest.size,
            }
        _write(path, json.dumps(data, indent=2) + "\n")
    # Archives have IDs, too; plain files have none.
    images = [output for output in request.outputs if output.kind in ("image", "docker", "oci")]
    if (images or not request.outputs) and not (stdout and any(each.dest == stdout for each in request.outputs)):
        cli.out(str(result.id))


def _write(path: str, text: str) -> None:
    from scow.api import Invalid

    try:
        Path(path).write_text(text)
    except OSError as error:
        raise Invalid(f"{path} can't be written: {error.strerror}") from None


def _checked(cli: Cli, findings: tuple[Finding, ...], request: BuildRequest) -> int:
    for finding in findings:
        cli.out(f"WARNING: {finding.rule} - {finding.url}")
        cli.out(finding.message)
        cli.out(f"{finding.file or request.file_name}:{finding.line}")
        cli.out(f"{finding.shown}\n")
    if not findings:
        cli.out("Check complete, no warnings found.")
        return 0
    many = len(findings)
    cli.out(f"Check complete, {many} warning{'s have' if many != 1 else ' has'} been found!")
    return 1


def build_request(cli: Cli, args: Args, stdout: str = "") -> BuildRequest:
    """What the flags say, with the files read that they name. Raises UsageError, Invalid, NotFound."""
    from scow.api import Platform
    from scow.engine.builders import BuildRequest

    (place,) = args.words
    build_args = _pairs(cli, args, "build-arg", environment=True)
    if "SOURCE_DATE_EPOCH" in cli.environ:
        build_args.setdefault("SOURCE_DATE_EPOCH", cli.environ["SOURCE_DATE_EPOCH"])
    network = args.text("network") or "default"
    if network not in ("default", "none", "host", "bridge"):
        raise UsageError(f'invalid argument "{network}" for "--network" flag: write default, none or host')
    return BuildRequest(
        **_source(cli, args, place),
        names=args.all("tag"),
        target=args.text("target") or "",
        build_args=build_args,
        contexts=_contexts(args),
        platform=Platform.parse(args.text("platform") or "") if args.text("platform") else Platform.host(),
        no_cache=args.on("no-cache"),
        no_cache_filter=tuple(name for each in args.all("no-cache-filter") for name in each.lower().split(",") if name),
        pull=args.on("pull") if "pull" in args.given else None,
        include=args.on("include"),
        network="default" if network == "bridge" else network,
        secrets=_secrets(cli, args),
        labels=_pairs(cli, args, "label", environment=False),
        extra_hosts=_hosts(args),
        shm_size=args.number("shm-size"),
        ulimits=ulimits(args),
        cgroup_parent=args.text("cgroup-parent") or "",
        outputs=outputs(args, stdout),
        cache_from=cache_from(args),
        cache_to=cache_to(args),
        agents=agents(args, cli.environ),
        entitlements=entitlements(args),
        annotations=manifest_annotations(args),
    )


def _may_block(args: Args) -> bool:
    """Whether the flags may name a pipe to read. A thread for it would be a tenth of a build that changes nothing."""
    read = (args.text("file"), *args.all("secret"), *args.all("ssh"), *args.all("build-context"))
    return any(read)


def _source(cli: Cli, args: Args, place: str) -> dict[str, Any]:
    """The context and the Dockerfile, as fields of the request. What lies in the context is read by the builder."""
    from scow.api import NotFound

    given = args.text("file") or ""
    if place == "-":
        if given == "-":
            raise UsageError("invalid argument: can't use stdin for both build context and dockerfile")
        return {"stream": cli.stdin, "file_name": given, "context_name": "-"}
    file: dict[str, Any] = {"file_name": given}
    if given == "-":
        file = {"file": read_named(cli.stdin, _FILE_MAX, "the Dockerfile"), "file_name": "Dockerfile"}
    if "://" in place or (not Path(place).exists() and (place.startswith("github.com/") or _SCP.match(place))):
        return {**file, "remote": place, "context_name": place}
    context = Path(place)
    if not context.is_dir():
        what = "is not a directory" if context.exists() else "not found"
        raise NotFound(f"unable to prepare context: path {place!r} {what}")
    if given and given != "-":
        inside = os.path.relpath(os.path.abspath(given), os.path.abspath(context))
        if inside == ".." or inside.startswith("../"):
            # The user's own word, wherever it leads; a file in the context may be somebody else's.
            return {"context": context, **_named_file(context, given)}
        file = {"file_name": inside}
    return {"context": context, **file}


def _named_file(context: Path, given: str) -> dict[str, Any]:
    """A Dockerfile from outside the context, and the ignore file beside it, if there is one."""
    from scow.api import NotFound

    found: dict[str, Any] = {"file_name": given}
    try:
        found["file"] = read_named(given, _FILE_MAX, given)
    except OSError as error:
        raise NotFound(f"failed to read dockerfile: {given}: {error.strerror}") from None
    beside = f"{given}.dockerignore"
    if os.path.isfile(beside):
        found["ignore"] = read_named(beside, _FILE_MAX, beside)
    return found


def _pairs(cli: Cli, args: Args, flag: str, *, environment: bool) -> dict[str, str]:
    found = {}
    for text in args.all(flag):
        name, equals, value = text.partition("=")
        if not name:
            raise UsageError(f'invalid argument "{text}" for "--{flag}" flag: it has no name')
        if equals:
            found[name] = value
        elif not environment:
            found[name] = ""
        elif name in cli.environ:
            # As docker: a name alone takes the value from the environment, and means nothing where there is none.
            found[name] = cli.environ[name]
    return found


def _layout(text: str, place: str) -> str:
    """oci-layout://DIRECTORY[:TAG][@DIGEST], the directory as an absolute path."""
    from scow.api import Digest, NotFound

    path, at, digest = place.removeprefix("oci-layout://").partition("@")
    path, colon, tag = path.partition(":")
    if not path or (colon and not tag):
        raise UsageError(
            f'invalid argument "{text}" for "--build-context" flag: write oci-layout://DIRECTORY[:TAG][@DIGEST]'
        )
    if not Path(path).is_dir():
        raise NotFound(f"the OCI layout {path} is no directory")
    if at:
        Digest.parse(digest)
    return f"oci-layout://{os.path.abspath(path)}{colon}{tag}{at}{digest}"


def _contexts(args: Args) -> dict[str, str]:
    from scow.api import Invalid, NotFound, parse_named

    found = {}
    for text in args.all("build-context"):
        name, equals, place = text.partition("=")
        if not name or not equals or not place:
            raise UsageError(f'invalid argument "{text}" for "--build-context" flag: write name=directory')
        try:
            name = parse_named(name).familiar.removesuffix(":latest")
        except Invalid as error:
            raise UsageError(f"invalid context name {name}: {error.message}") from None
        if place.startswith("oci-layout://"):
            place = _layout(text, place)
        elif place.startswith("docker-image://"):
            parse_named(place.removeprefix("docker-image://"))
        elif "://" not in place and not _SCP.match(place) and not Path(place).is_dir():
            raise NotFound(f"the context {name} is no directory: {place}")
        found[name] = place
    return found


def _secrets(cli: Cli, args: Args) -> dict[str, bytes]:
    from scow.api import NotFound

    found = {}
    for text in args.all("secret"):
        values = dict(part.partition("=")[::2] for part in text.split(","))
        source = values.get("src") or values.get("source")
        variable = values.get("env")
        identity = values.get("id", "")
        if not identity or set(values) - {"id", "src", "source", "env", "type"}:
            raise UsageError(f'invalid argument "{text}" for "--secret" flag: write id=name,src=file')
        if values.get("type", "file") == "env" and not variable:
            variable = source or identity
            source = None
        if source is None and variable is None:
            source, variable = (None, identity) if identity in cli.environ else (identity, None)
        if variable is not None:
            if variable not in cli.environ:
                raise NotFound(f"secret {identity}: there is no environment variable {variable}")
            found[identity] = cli.environ[variable].encode(errors="surrogateescape")
            continue
        try:
            found[identity] = read_named(os.path.expanduser(source or ""), _SECRET_MAX, f"secret {identity}")
        except OSError as error:
            raise NotFound(f"secret {identity}: {source} can't be read: {error.strerror}") from None
    return found


def _hosts(args: Args) -> tuple[tuple[str, str], ...]:
    found = []
    for text in args.all("add-host"):
        name, mark, address = text.partition("=" if "=" in text else ":")
        if not name or not mark or not address:
            raise UsageError(f'invalid argument "{text}" for "--add-host" flag: write name:address')
        found.append((name, address.strip("[]")))
    return tuple(found)
