"""-v, --mount and --tmpfs as the engine's mounts. Raises the engine's errors, naming the mount as the user wrote it."""

from __future__ import annotations

import csv
import os
import posixpath
import re
from typing import Final

from scow.api import BindMount, Invalid, Mount, NotFound, TmpfsMount, Unsupported
from scow_plugins.cli._flags import Args
from scow_plugins.cli._tmpfs import read_tmpfs
from scow_plugins.cli._values import size as read_size
from scow_plugins.cli._values import switch

_PROPAGATION: Final = frozenset({"private", "rprivate", "slave", "rslave", "shared", "rshared"})
_VOLUME_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_PATHS: Final = "mount a path of the host instead, such as -v ./data:/data"
#: How a virtual machine's shared directories are cached, and labels of SELinux, which scow's containers don't have:
#: docker's words that change nothing here.
_CONSISTENCIES: Final = ("default", "consistent", "cached", "delegated")
_NOTHING: Final = frozenset(("z", "Z", "consistent", "cached", "delegated"))


def mounts(args: Args) -> tuple[Mount, ...]:
    """All mounts that the flags ask for; missing sources of -v are made. Raises Invalid, NotFound, Unsupported."""
    found: list[Mount] = [_volume(text) for text in args.all("volume")]
    found += [_mount(text) for text in args.all("mount")]
    found += [_tmpfs(text) for text in args.all("tmpfs")]
    seen: set[str] = set()
    for mount in found:
        if mount.target in seen:
            raise Invalid(f"two mounts have the same target {mount.target}")
        seen.add(mount.target)
    for mount in found:
        if isinstance(mount, BindMount):
            _make(mount.source)
    return tuple(found)


def _make(source: str) -> None:
    """The missing directory that -v names, with those above it; what --mount names is there."""
    if os.path.exists(source):
        return
    try:
        os.makedirs(source, 0o755)
    except OSError as error:
        raise NotFound(
            f"{source} doesn't exist on this machine, and can't be made: {error.strerror}", hint="name a directory"
        ) from None


def _volume(text: str) -> BindMount:
    source, colon, rest = text.partition(":")
    target, _, options = rest.partition(":")
    if not colon:
        raise Unsupported(f"volume {text!r}: scow has no anonymous volumes", hint=_PATHS)
    if not source or not target or ":" in options:
        raise Invalid(f"volume {text!r} is not source:target[:options]")
    if not source.startswith(("/", ".")):
        if _VOLUME_NAME.fullmatch(source):
            raise Unsupported(f"volume {text!r}: scow has no named volumes", hint=f"for a directory write ./{source}")
        raise Invalid(f"volume {text!r}: {source!r} is not a path", hint=_PATHS)
    read_only, propagation = False, "rprivate"
    for option in options.split(",") if options else ():
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in _PROPAGATION:
            propagation = option
        elif option not in _NOTHING:
            raise Invalid(f"volume {text!r}: unknown option {option!r}", hint="ro, rw, or a propagation")
    # Made when it isn't there (see `mounts`): docker's -v does so, and its --mount doesn't.
    return BindMount(os.path.abspath(source), _target(target, text), read_only, propagation)


def _source(path: str, whole: str) -> str:
    absolute = os.path.abspath(path)
    if not os.path.exists(absolute):
        raise NotFound(f"mount {whole!r}: {absolute} doesn't exist on this machine", hint=f"mkdir -p {absolute}")
    return absolute


def _target(path: str, whole: str) -> str:
    if not path.startswith("/"):
        raise Invalid(f"mount {whole!r}: target {path!r} is not an absolute path")
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if clean == "/":
        raise Invalid(f"mount {whole!r}: target can't be the root of the container")
    return clean


def _mount(text: str) -> Mount:
    try:
        (fields,) = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise Invalid(f"mount {text!r} is not a line of key=value,…") from None
    pairs = {
        key.strip().lower(): value if equals else None for key, equals, value in (f.partition("=") for f in fields)
    }
    options = _Options(text, pairs)
    kind = options.text("type") or "volume"
    if kind == "bind":
        return _mount_bind(options)
    if kind == "tmpfs":
        return _mount_tmpfs(options)
    if kind in ("volume", "npipe", "cluster", "image"):
        raise Unsupported(f"mount {text!r}: scow has no mounts of type {kind}", hint="type=bind and type=tmpfs work")
    raise Invalid(f"mount {text!r}: unknown type {kind!r}", hint="type=bind and type=tmpfs work")


class _Options:
    """The parts of --mount; each is taken once, and what is left is an error."""

    def __init__(self, whole: str, pairs: dict[str, str | None]) -> None:
        self.whole = whole
        self.pairs = pairs

    def text(self, *names: str) -> str | None:
        for name in names:
            if name in self.pairs:
                value = self.pairs.pop(name)
                if not value:
                    raise Invalid(f"mount {self.whole!r}: {name} has no value")
                return value
        return None

    def on(self, *names: str) -> bool:
        for name in names:
            if name in self.pairs:
                value = self.pairs.pop(name)
                try:
                    return True if value is None else switch(value)
                except ValueError as error:
                    raise Invalid(f"mount {self.whole!r}: {name}: {error}") from None
        return False

    def target(self) -> str:
        target = self.text("target", "destination", "dst")
        if target is None:
            raise Invalid(f"mount {self.whole!r} has no target")
        return _target(target, self.whole)

    def done(self) -> None:
        for name in self.pairs:
            raise Invalid(f"mount {self.whole!r}: unknown key {name!r} for this type")


def _mount_bind(options: _Options) -> BindMount:
    source = options.text("source", "src")
    if source is None:
        raise Invalid(f"mount {options.whole!r} has no source")
    propagation = options.text("bind-propagation") or "rprivate"
    if propagation not in _PROPAGATION:
        raise Invalid(f"mount {options.whole!r}: unknown propagation {propagation!r}", hint=", ".join(_PROPAGATION))
    consistency = options.text("consistency") or "default"
    if consistency not in _CONSISTENCIES:
        raise Invalid(f"mount {options.whole!r}: unknown consistency {consistency!r}", hint=", ".join(_CONSISTENCIES))
    recursive = options.text("bind-recursive") or "enabled"
    if recursive not in ("enabled", "disabled"):
        raise Unsupported(f"mount {options.whole!r}: bind-recursive={recursive}", hint="enabled or disabled")
    mount = BindMount(
        source=_source(source, options.whole),
        target=options.target(),
        read_only=options.on("readonly", "ro"),
        propagation=propagation,
        recursive=recursive == "enabled" and not options.on("bind-nonrecursive"),
    )
    options.pairs.pop("bind-nonrecursive", None)
    options.done()
    return mount


def _mount_tmpfs(options: _Options) -> TmpfsMount:
    whole = options.whole
    size, mode = options.text("tmpfs-size"), options.text("tmpfs-mode")
    mount = TmpfsMount(
        target=options.target(),
        size=_size(size, whole) if size else None,
        mode=_mode(mode, whole) if mode else 0o1777,
        read_only=options.on("readonly", "ro"),
    )
    options.done()
    return mount


def _tmpfs(text: str) -> TmpfsMount:
    return read_tmpfs(
        text,
        lambda path: _target(path, text),
        lambda value: _size(value, text),
        lambda value: _mode(value, text),
    )


def _size(text: str, whole: str) -> int:
    try:
        return read_size(text)
    except ValueError as error:
        raise Invalid(f"mount {whole!r}: size {text!r}: {error}") from None


def _mode(text: str, whole: str) -> int:
    if not re.fullmatch(r"[0-7]{1,4}", text):
        raise Invalid(f"mount {whole!r}: mode {text!r} is not an octal number of up to four digits")
    return int(text, 8)
