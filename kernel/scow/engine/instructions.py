"""commit --change: a few Dockerfile instructions on an image's settings (Docker's reference, "docker commit"). Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final

from scow.errors import Invalid

Settings = dict[str, Any]


def apply_instructions(settings: Settings, changes: Sequence[str]) -> Settings:
    """The settings after all changes. Raises Invalid, naming the change."""
    settings = dict(settings)
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        handler = _HANDLERS.get(word.upper())
        if handler is None:
            raise Invalid(f"change {change!r}: {word} is not possible here", hint=f"there are {', '.join(_HANDLERS)}")
        try:
            handler(settings, rest.strip())
        except ValueError as error:
            raise Invalid(f"change {change!r}: {error}") from None
    return settings


def _words(text: str) -> list[str]:
    """The JSON form, or a shell's command line."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return words
    return ["/bin/sh", "-c", text] if text else []


def _pairs(text: str) -> dict[str, str]:
    """`key=value key="v w"`, or the old `key value`."""
    parts = shlex.split(text)
    if not parts:
        raise ValueError("a name is missing")
    if "=" not in parts[0]:
        name, _, value = text.partition(" ")
        return {name: value.strip()}
    if any("=" not in part or part.startswith("=") for part in parts):
        raise ValueError("write name=value")
    return {name: value for name, _, value in (part.partition("=") for part in parts)}


def _command(settings: Settings, text: str) -> None:
    settings["Cmd"] = _words(text)


def _entrypoint(settings: Settings, text: str) -> None:
    settings["Entrypoint"] = _words(text)


def _env(settings: Settings, text: str) -> None:
    merged = dict(each.partition("=")[::2] for each in settings.get("Env") or [])
    settings["Env"] = [f"{name}={value}" for name, value in {**merged, **_pairs(text)}.items()]


def _label(settings: Settings, text: str) -> None:
    settings["Labels"] = {**(settings.get("Labels") or {}), **_pairs(text)}


def _expose(settings: Settings, text: str) -> None:
    ports = dict(settings.get("ExposedPorts") or {})
    for word in text.split():
        number, slash, protocol = word.partition("/")
        if not number.isdigit() or not 0 < int(number) < 65536 or (slash and protocol not in ("tcp", "udp", "sctp")):
            raise ValueError(f"{word!r} is not a port")
        ports[f"{number}/{protocol or 'tcp'}"] = {}
    settings["ExposedPorts"] = ports


def _volume(settings: Settings, text: str) -> None:
    words = _words(text) if text.startswith("[") else text.split()
    settings["Volumes"] = {**(settings.get("Volumes") or {}), **{word: {} for word in words}}


def _workdir(settings: Settings, text: str) -> None:
    if not text:
        raise ValueError("a directory is missing")
    below = settings.get("WorkingDir") or "/"
    settings["WorkingDir"] = text if text.startswith("/") else f"{below.rstrip('/')}/{text}"


def _one(key: str) -> Callable[[Settings, str], None]:
    def handler(settings: Settings, text: str) -> None:
        if not text:
            raise ValueError("a value is missing")
        settings[key] = text

    return handler


def _onbuild(settings: Settings, text: str) -> None:
    if not text:
        raise ValueError("an instruction is missing")
    settings["OnBuild"] = [*(settings.get("OnBuild") or []), text]


_HANDLERS: Final[dict[str, Callable[[Settings, str], None]]] = {
    "CMD": _command,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _one("StopSignal"),
    "USER": _one("User"),
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
