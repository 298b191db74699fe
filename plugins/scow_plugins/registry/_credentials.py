"""Logins from Docker's configuration: `auths`, `credHelpers`, `credsStore` (docker-credential-helpers' protocol).

Read anew for each registry that asks for a login, never logged; passwords show in no repr and no message. What changes
the file is in `_accounts`.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import trio

from scow.api import Invalid

from ._endpoints import DOCKER_HUB

#: Docker Hub's key, from the days of the first registry protocol.
HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_NAMES: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: A helper may ask a person to unlock a key ring.
_HELPER_SECONDS: Final = 60.0
_NOT_FOUND: Final = b"credentials not found"
#: The name that says: the secret is an identity token.
_TOKEN_NAME: Final = "<token>"


@dataclass(frozen=True, slots=True)
class Credentials:
    """One login: a name and a password, or an identity (refresh) token, or a bearer token that is used as it is."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


class HelperFailed(Exception):
    """A credential helper could not be asked; the text says which and why, nothing else."""


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


class DockerConfig(msgspec.Struct, rename={"creds_store": "credsStore", "cred_helpers": "credHelpers"}):
    """The part of ~/.docker/config.json that is about logins."""

    auths: dict[str, _Auth] | None = None
    creds_store: str | None = None
    cred_helpers: dict[str, str] | None = None

    def helper(self, login: str) -> str | None:
        """The helper to ask for `login`; None when the file itself is to be read."""
        helpers = self.cred_helpers or {}
        for name in names_of(login):
            if helpers.get(name):
                return helpers[name]
        return self.creds_store or None

    def inline(self, login: str) -> Credentials | None:
        """The login that stands in the file."""
        auths = self.auths or {}
        wanted = names_of(login)
        for name in wanted:
            if name in auths:
                return _credentials(auths[name])
        for key, auth in auths.items():
            if host_of(key) in wanted:
                return _credentials(auth)
        return None


class _HelperAnswer(msgspec.Struct, rename="pascal"):
    username: str = ""
    secret: str = ""


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where Docker's configuration lies: $DOCKER_CONFIG, else ~/.docker."""
    directory = environ.get("DOCKER_CONFIG")
    return (Path(directory) if directory else Path(environ.get("HOME") or "/root") / ".docker") / "config.json"


def read_config(path: Path) -> DockerConfig:
    """Docker's configuration, empty when there is none. Raises Invalid, naming the file but nothing in it."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return DockerConfig()
    except OSError as error:
        raise Invalid(f"can't read {path}: {error.strerror}", hint="DOCKER_CONFIG names another directory") from None
    try:
        return msgspec.json.decode(data or b"{}", type=DockerConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid(f"{path} is not a valid Docker configuration", hint="repair it, or set DOCKER_CONFIG") from None


async def find_credentials(login: str) -> Credentials | None:
    """The user's login for a registry (`docker.io`, `host:port`); None when there is none.

    Raises Invalid for a broken file, HelperFailed when a helper can't be asked.
    """
    config = read_config(config_path())
    helper = config.helper(login)
    if helper is None:
        return config.inline(login)
    try:
        return await _ask_helper(helper, HUB_KEY if login == DOCKER_HUB else login)
    except HelperFailed:
        # The file may hold a login from before the helper was set up.
        if (found := config.inline(login)) is not None:
            return found
        raise


async def _ask_helper(helper: str, server: str) -> Credentials | None:
    program, code, output = await run_helper(helper, "get", server.encode())
    if code != 0:
        if _NOT_FOUND in output.lower():
            return None
        raise HelperFailed(f"{program} failed with exit code {code}")
    return _helper_answer(program, output)


async def run_helper(helper: str, action: str, data: bytes) -> tuple[str, int, bytes]:
    """The program's name, its exit code and its output; `data` may hold a password. Raises HelperFailed."""
    program = f"docker-credential-{helper}"
    if not _HELPER.fullmatch(helper):
        raise HelperFailed(f"{helper!r} is not a credential helper's name")
    try:
        with trio.fail_after(_HELPER_SECONDS):
            done = await trio.run_process(
                [program, action],
                stdin=data,
                capture_stdout=True,
                check=False,
                stderr=subprocess.DEVNULL,
            )
    except OSError as error:
        raise HelperFailed(f"{program}: {error.strerror}") from None
    except trio.TooSlowError:
        raise HelperFailed(f"{program} took longer than {_HELPER_SECONDS:.0f} s") from None
    return program, done.returncode, done.stdout


def _helper_answer(program: str, output: bytes) -> Credentials | None:
    try:
        answer = msgspec.json.decode(output, type=_HelperAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HelperFailed(f"{program} answers with something that is no login") from None
    if answer.username == _TOKEN_NAME:
        return Credentials(identity_token=answer.secret) if answer.secret else None
    return Credentials(answer.username, answer.secret) if answer.username or answer.secret else None


def _credentials(auth: _Auth) -> Credentials | None:
    username, password = auth.username, auth.password
    if auth.auth:
        try:
            # Docker pads with NUL bytes at times.
            decoded = base64.b64decode(auth.auth, validate=False).decode().strip("\0")
        except (binascii.Error, ValueError):
            decoded = ""
        name, colon, secret = decoded.partition(":")
        if colon:
            username, password = name, secret
    if username == _TOKEN_NAME and not auth.identitytoken:
        return Credentials(identity_token=password)
    found = Credentials(username, password, auth.identitytoken, auth.registrytoken)
    return found if found != Credentials() else None


def names_of(login: str) -> tuple[str, ...]:
    """Under which keys a registry's login may stand, the usual one first."""
    return (HUB_KEY, *_HUB_NAMES) if login == DOCKER_HUB else (login,)


def host_of(key: str) -> str:
    """The host in a key of `auths`, which may be a URL of older days (`https://host/v1/`)."""
    _, scheme, rest = key.rpartition("://")
    return (rest if scheme else key).partition("/")[0].lower()
