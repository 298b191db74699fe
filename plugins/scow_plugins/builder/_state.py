"""What a stage knows while its instructions are read one after the other: environment, arguments, configuration.

Pure: base configuration in, configuration and steps out. An instruction sees the values from before it.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from scow.api import Invalid, signal_number
from scow_plugins.builder._expand import Expander, ExpandError
from scow_plugins.builder._gitref import is_git, parse_git
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
from scow_plugins.builder._parse import checked_mount, heredoc_alone
from scow_plugins.builder._source import Place, wrong
from scow_plugins.builder._stages import PROXIES, Globals
from scow_plugins.builder._steps import CopyOp, File, MountOp, Op, Origin, PlannedStep, RunOp, WorkdirOp

_SHELL: Final = ("/bin/sh", "-c")
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PORTS: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/([A-Za-z]+))?")
_URL: Final = re.compile(r"https?://", re.IGNORECASE)
_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}

#: Says what a name after `--from` means.
Resolve = Callable[[str, Instruction], Origin]


class StageState:
    """One stage's values. `read` takes an instruction and gives the step that it is."""

    def __init__(self, scope: Globals, escape: str, resolve: Resolve, network: str = "default") -> None:
        self._scope = scope
        self._escape = escape
        self._resolve = resolve
        self._network = network
        self.config: dict[str, Any] = {}
        self.author = ""
        #: What the image will say.
        self.env: dict[str, str] = {}
        self.args: dict[str, str | None] = {}
        #: What programs and `$name` see: ENV and ARG, of which the later counts.
        self.seen: dict[str, str] = {}
        self._cmd_set = False
        #: Variables that were used without a value: (name, place).
        self.missing: list[tuple[str, Place]] = []

    def begin(self, config: Mapping[str, Any], *, inherited: StageState | None = None) -> None:
        """Take over what a base image or another stage says."""
        self.config = {key: value for key, value in config.items() if value not in (None, "")}
        self.env = dict(entry.partition("=")[::2] for entry in self.config.get("Env") or ())
        self.seen = dict(self.env)
        if inherited is not None:
            self.args = dict(inherited.args)
            self.seen = dict(inherited.seen)
            self.author = inherited.author
        if "PATH" not in self.env:
            self._set_env("PATH", PATH)

    def triggers(self) -> list[str]:
        """The base's ONBUILD triggers, which this stage runs and doesn't keep."""
        return list(self.config.pop("OnBuild", None) or ())

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.get("Shell") or _SHELL)

    @property
    def workdir(self) -> str:
        return str(self.config.get("WorkingDir") or "/")

    def read(self, said: Instruction) -> PlannedStep:
        """Understand one instruction in this state. Raises Invalid, Unsupported."""
        reader = getattr(self, f"_{type(said).__name__.lower()}")
        shell = self._shell_here()
        created_by, op = reader(said)
        if isinstance(op, RunOp):
            shell = replace(op, args=shell.args)
        return PlannedStep(said, title_of(said), created_by, shell, op)

    def _shell_here(self) -> RunOp:
        """A shell with what has been said so far."""
        return RunOp(
            self.shell[:1],
            self._environment(),
            self.workdir,
            str(self.config.get("User") or ""),
            network=self._network,
            proxies=self._proxies(),
        )

    def _environment(self) -> tuple[str, ...]:
        return tuple(f"{name}={value}" for name, value in self.seen.items())

    def _proxies(self) -> tuple[str, ...]:
        """Both spellings of those that were given; where both were, the lower one counts."""
        given = {name.upper(): value for name, value in sorted(self._scope.given.items()) if name in PROXIES}
        return tuple(f"{name}={value}" for upper, value in given.items() for name in (upper, upper.lower()))

    # What variables are worth.

    def values(self) -> dict[str, str]:
        """What `$name` means now."""
        return dict(self.seen)

    def _expander(self) -> Expander:
        return Expander(self.values(), self._escape)

    def _word(self, said: Instruction, text: str, expander: Expander | None = None) -> str:
        expander = expander or self._expander()
        try:
            found = expander.word(text)
        except ExpandError as error:
            split = isinstance(said, Copy | Volume) and "quote" in error.message
            hint = (
                f'words end at spaces, also within quotes: {said.at.name} ["a name with spaces", …]' if split else None
            )
            raise wrong(said.at.find(text), f"failed to process {text!r}: {error.message}", hint=hint) from None
        self.missing += [(name, said.at.find(text)) for name in expander.missing]
        return found

    # Instructions that change the configuration only.

    def _from(self, said: From) -> tuple[str, Op | None]:
        raise wrong(said.at.place(), "FROM can't stand here")

    def _arg(self, said: Arg) -> tuple[str, Op | None]:
        shown = []
        for name, default in said.values:
            value = self._argument(said, self._word(said, name), default)
            self.args[self._word(said, name)] = value
            if value is not None:
                self.seen[self._word(said, name)] = value
            shown.append(name if value is None else f"{name}={value}")
        return "ARG " + " ".join(shown), None

    def _argument(self, said: Instruction, name: str, default: str | None) -> str | None:
        if name in self._scope.given:
            return self._scope.given[name]
        if default is not None:
            return self._word(said, default)
        return self._scope.values.get(name)

    def _env(self, said: Env) -> tuple[str, Op | None]:
        values = self._pairs(said)
        for name, value in values:
            self._set_env(name, value)
        return "ENV " + " ".join(f"{name}={value}" for name, value in values), None

    def _set_env(self, name: str, value: str) -> None:
        self.env[name] = self.seen[name] = value
        self.config["Env"] = [f"{key}={each}" for key, each in self.env.items()]

    def _pairs(self, said: Env | Label) -> list[tuple[str, str]]:
        """All of them see the values from before the instruction."""
        before = self.values()
        return [
            (
                self._word(said, name, Expander(before, self._escape)),
                self._word(said, value, Expander(before, self._escape)),
            )
            for name, value in said.values
        ]

    def _label(self, said: Label) -> tuple[str, Op | None]:
        values = self._pairs(said)
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **dict(values)}
        return "LABEL " + " ".join(f"{name}={value}" for name, value in values), None

    def _maintainer(self, said: Maintainer) -> tuple[str, Op | None]:
        self.author = said.name
        return f"MAINTAINER {said.name}", None

    def _user(self, said: User) -> tuple[str, Op | None]:
        user = self._word(said, said.user)
        self.config["User"] = user
        if not user:
            del self.config["User"]  # what an image doesn't say
        return f"USER {user}", None

    def _volume(self, said: Volume) -> tuple[str, Op | None]:
        paths = [self._word(said, path) for path in said.paths]
        if not all(paths):
            raise wrong(said.at.place_of_rest, "VOLUME specified can not be an empty string")
        self.config["Volumes"] = {**(self.config.get("Volumes") or {}), **{path: {} for path in paths}}
        return f"VOLUME [{' '.join(paths)}]", None

    def _expose(self, said: Expose) -> tuple[str, Op | None]:
        ports: list[str] = []
        for text in said.ports:
            expander = self._expander()
            try:
                words = expander.words(text)
            except ExpandError as error:
                raise wrong(said.at.find(text), error.message) from None
            self.missing += [(name, said.at.find(text)) for name in expander.missing]
            for word in words:
                ports += exposed_ports(word, said.at.find(text))
        self.config["ExposedPorts"] = {**(self.config.get("ExposedPorts") or {}), **{port: {} for port in ports}}
        return f"EXPOSE [{' '.join(ports)}]", None

    def _stopsignal(self, said: StopSignal) -> tuple[str, Op | None]:
        signal = self._word(said, said.signal)
        try:
            signal_number(signal)
        except Invalid as error:
            raise wrong(said.at.place_of_rest, error.message) from None
        self.config["StopSignal"] = signal
        return f"STOPSIGNAL {signal}", None

    def _shell(self, said: Shell) -> tuple[str, Op | None]:
        self.config["Shell"] = list(said.words)
        return f"SHELL [{' '.join(said.words)}]", None

    def _words(self, command: CommandLine) -> list[str]:
        return [*self.shell, *command.words] if command.shell else list(command.words)

    def _cmd(self, said: Cmd) -> tuple[str, Op | None]:
        self.config["Cmd"] = self._words(said.command)
        self._cmd_set = True
        return f"CMD {quoted(self.config['Cmd'])}", None

    def _entrypoint(self, said: Entrypoint) -> tuple[str, Op | None]:
        self.config["Entrypoint"] = self._words(said.command)
        if not self._cmd_set:
            # What the base's own entrypoint was given means nothing to another one.
            self.config.pop("Cmd", None)
        return f"ENTRYPOINT {quoted(self.config['Entrypoint'])}", None

    def _healthcheck(self, said: Healthcheck) -> tuple[str, Op | None]:
        health: dict[str, Any] = {"Test": ["NONE"]}
        if said.command is not None:
            health["Test"] = ["CMD-SHELL" if said.command.shell else "CMD", *said.command.words]
        times = {
            "Interval": said.interval,
            "Timeout": said.timeout,
            "StartPeriod": said.start_period,
            "StartInterval": said.start_interval,
            "Retries": said.retries,
        }
        health |= {name: value for name, value in times.items() if value}
        self.config["Healthcheck"] = health
        shown = " ".join(json.dumps(go_duration(said_ or 0)) for said_ in list(times.values())[:4])
        return f"HEALTHCHECK &{{{quoted(health['Test'])} {shown} '\\x{said.retries or 0:02x}'}}", None

    def _onbuild(self, said: OnBuild) -> tuple[str, Op | None]:
        self.config["OnBuild"] = [*(self.config.get("OnBuild") or ()), said.text]
        return "", None  # no line of the history

    # Instructions that change files.

    def _workdir(self, said: Workdir) -> tuple[str, Op | None]:
        path = self._word(said, said.path)
        path = self.absolute(path)
        self.config["WorkingDir"] = path
        return f"WORKDIR {path}", WorkdirOp(path, str(self.config.get("User") or ""))

    def absolute(self, path: str) -> str:
        """A path inside the image, without `.` and `..`."""
        return "/" + posixpath.normpath(posixpath.join(self.workdir, path)).lstrip("/")

    def _run(self, said: Run) -> tuple[str, Op | None]:
        args, files = self._command(said)
        op = RunOp(
            tuple(args),
            self._environment(),
            self.workdir,
            str(self.config.get("User") or ""),
            tuple(self._mount(said, number, mount) for number, mount in enumerate(said.mounts)),
            said.network if said.network != "default" else self._network,
            said.security,
            files,
            self._proxies(),
        )
        declared = [f"{name}={self.seen.get(name, value or '')}" for name, value in self.args.items()]
        text = " ".join((*([f"|{len(declared)}", *declared] if declared else ()), *args))
        return f"RUN {text} # buildkit", op

    def _command(self, said: Run) -> tuple[list[str], tuple[tuple[str, bytes], ...]]:
        alone = heredoc_alone(said)
        if alone is None:
            if not said.heredocs:
                if not said.command.words:
                    raise wrong(said.at.place_of_rest, "RUN needs a command")
                return self._words(said.command), ()
            # The shell reads the documents itself.
            full = said.command.words[0] + "".join(f"\n{each.raw}{each.name}" for each in said.heredocs)
            return [*self.shell, full], ()
        if alone.content.startswith("#!"):
            path = f"/dev/pipes/{alone.name}"
            return [path], ((path, alone.content.encode()),)
        return [*self.shell, alone.content], ()

    def _mount(self, said: Run, number: int, mount: RunMount) -> MountOp:
        place = said.at.find("--mount", 0)
        said_values = [(key, value if key == "from" else self._word(said, value)) for key, value in mount.values]
        mount = checked_mount(RunMount(self._word(said, mount.kind), tuple(said_values)), place)
        values = dict(said_values)
        name = values.get("from", "")
        if "$" in name:
            raise wrong(place, "from= doesn't take variables", hint="define a stage with FROM … AS name instead")
        identity = values.get("id", "")
        target = values.get("target", "")
        if mount.kind == "secret":
            identity = identity or values.get("source", "") or posixpath.basename(target)
            if not target and not values.get("env"):
                target = f"/run/secrets/{posixpath.basename(identity)}"
        if mount.kind == "ssh":
            identity = identity or "default"
            target = target or f"/run/buildkit/ssh_agent.{number}"
        nothing = Origin("scratch" if mount.kind == "cache" else "context")
        source = "" if mount.kind == "secret" else values.get("source", "")
        if mount.kind == "bind" and source:
            source = posixpath.normpath("/" + source.lstrip("/"))
        try:
            return MountOp(
                mount.kind,
                self.absolute(target) if target else "",
                source,
                self._resolve(name, said) if name else nothing,
                _read_only(mount),
                self._cache_id(identity, target) if mount.kind == "cache" else identity,
                (values.get("sharing") or "shared").lower(),
                int(values["mode"], 8) if "mode" in values else None,
                int(values.get("uid", "0")),
                int(values.get("gid", "0")),
                _size(values["size"]) if "size" in values else None,
                values.get("env", ""),
                _truth(values.get("required")),
            )
        except ValueError as error:
            raise wrong(place, f"a value of the mount is wrong: {error}") from None

    def _cache_id(self, identity: str, target: str) -> str:
        """All builds share a cache by its id; a namespace, given from outside, keeps projects apart."""
        identity = identity or self.absolute(target)
        namespace = self._scope.given.get("BUILDKIT_CACHE_MOUNT_NS", "")
        return posixpath.normpath(f"{namespace}/{identity}") if namespace else identity

    def _copy(self, said: Copy) -> tuple[str, Op | None]:
        before = self.values()

        def word(text: str) -> str:
            return self._word(said, text, Expander(before, self._escape))

        sources = [word(text) for text in said.sources]
        target = word(said.target)
        files = tuple(self._file(said, number) for number in range(len(said.heredocs)))
        if not all(sources):
            raise wrong(said.at.place_of_rest, f"{said.at.name} has an empty source")
        target = target or "./"  # an empty variable means the working directory
        place = said.at.place_of_rest
        remote = [text for text in sources if said.add and (is_git(text) or _URL.match(text))]
        repositories = tuple(text for text in remote if is_git(text))
        for text in repositories:
            _checked_git(said, text)
        urls = tuple(text for text in remote if text not in repositories)
        if said.keep_git_dir and not repositories:
            raise wrong(place, "--keep-git-dir needs a source that is a git repository")
        if said.checksum and (len(sources) != 1 or not remote):
            raise wrong(place, "--checksum needs exactly one source, which is a URL or a git repository")
        if len(sources) + len(files) > 1 and not target.endswith("/"):
            raise wrong(
                said.at.find(said.target),
                f"when using {said.at.name} with more than one source file, the destination must be a directory "
                "and end with a /",
            )
        origin = self._resolve(said.stage, said) if said.stage else Origin("context")
        op = CopyOp(
            origin,
            tuple(text for text in sources if text not in remote),
            self.absolute(target) + ("/" if target.endswith("/") or target in (".", "./") else ""),
            said.add,
            files,
            urls,
            word(said.chown),
            word(said.chmod),
            said.link,
            said.parents,
            tuple(word(text) for text in said.exclude),
            word(said.checksum),
            said.unpack,
            repositories,
            said.keep_git_dir,
        )
        flags = "".join(
            f"--{name}={value} "
            for name, value in (("chown", op.chown), ("chmod", op.chmod), ("from", said.stage))
            if value and name != "from"
        )
        parents = "--parents " if op.parents else ""
        shown = [*sources, *(f"<<{file.name}" for file in files)]
        return f"{said.at.name} {parents}{flags}{' '.join(shown)} {target} # buildkit", op

    def _file(self, said: Copy, number: int) -> File:
        heredoc = said.heredocs[number]
        content = heredoc.content
        if heredoc.expand:
            try:
                content = self._expander().content(content)
            except ExpandError as error:
                place = Place(said.at.source, heredoc.line + content[: error.at].count("\n"))
                raise wrong(place, error.message) from None
        return File(heredoc.name, content.encode())


def _checked_git(said: Copy, text: str) -> None:
    """A wrong reference is said where it stands."""
    try:
        parse_git(text)
    except Invalid as error:
        raise wrong(said.at.find(text), error.message, hint=error.hint) from None


def title_of(said: Instruction) -> str:
    """An instruction as progress shows it: one line."""
    text = " ".join(said.at.text.split())
    return text if len(text) <= 160 else text[:159] + "…"


def quoted(words: list[str]) -> str:
    """Go's %q of a list."""
    return "[" + " ".join(json.dumps(word, ensure_ascii=False) for word in words) + "]"


def go_duration(nanoseconds: int) -> str:
    """A time as Go's time.Duration writes it: `1h0m0s`, `1.5s`, `5ms`."""
    if nanoseconds < 10**9:
        for size, unit in ((10**6, "ms"), (10**3, "µs")):
            if nanoseconds >= size:
                return f"{_decimal(nanoseconds, size)}{unit}"
        return f"{nanoseconds}ns" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    lead = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{lead}{_decimal(rest, 10**9)}s"


def _decimal(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".")


def exposed_ports(text: str, place: Place) -> list[str]:
    """`80`, `80/udp`, `8000-8010`: each port with its protocol. Raises Invalid."""
    # `ip:host:container` names a host's port, too, which an image can't have: only the last part counts.
    match = _PORTS.fullmatch(text.rpartition(":")[2])
    if match is None:
        raise wrong(place, f"invalid containerPort: {text}", hint="EXPOSE takes ports of the container: 80, 53/udp")
    first, last = int(match[1]), int(match[2] or match[1])
    protocol = (match[3] or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise wrong(place, f"invalid proto: {protocol}")
    if not first <= last <= 65535:
        raise wrong(place, f"invalid range of ports: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _read_only(mount: RunMount) -> bool:
    """The last of `ro` and `rw` counts; without one only caches and tmpfs are writable."""
    read_only = mount.kind not in ("cache", "tmpfs")
    for key, value in mount.values:
        if key in ("ro", "rw"):
            read_only = _truth(value) is (key == "ro")
    return read_only


def _truth(text: str | None) -> bool:
    if text is None or text.lower() in ("false", "0"):
        return False
    if text.lower() in ("true", "1", ""):
        return True
    raise ValueError(f"{text!r} is neither true nor false")


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]+)([bkmg]?)b?", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is no size")
    return int(match[1]) * _UNITS[match[2]]


__all__ = ["PATH", "Invalid", "StageState", "exposed_ports", "quoted", "title_of"]
