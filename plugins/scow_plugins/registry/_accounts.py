"""Logins checked and kept: in Docker's configuration file, or by the credential helper that it names.

The file belongs to docker too: what scow doesn't know stays as it is, and it is replaced whole, readable by its owner.
"""

from __future__ import annotations

import base64
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import trio

from scow.api import Denied, Invalid, Named, Unavailable, parse_named

from ._credentials import HUB_KEY, Credentials, HelperFailed, config_path, host_of, names_of, read_config, run_helper
from ._endpoints import DOCKER_HUB, Endpoint, Rules
from ._failures import Failure, Verdict, from_no_answer, most_telling
from ._http import NoAnswer
from ._session import Session

_NO_MATTER = 64 * 1024


def server_name(text: str) -> str:
    """A registry's name as it stands in image names: from a host, a URL of older days, or nothing. Raises Invalid."""
    if text in ("", HUB_KEY):
        return DOCKER_HUB
    host = text.rpartition("://")[2].partition("/")[0]
    try:
        named = parse_named(f"{host}/a/a")
    except Invalid:
        named = Named("", "", None, None)
    if named.path != "a/a":
        raise Invalid(f"{text!r} is not a registry's host name", hint="write it as registry.example or localhost:5000")
    return named.domain


async def check_login(session: Session, rules: Rules, server: str, login: Credentials) -> None:
    """Ask the registry itself whether a login is good. Raises Denied, Unavailable."""
    failures: dict[Endpoint, Failure] = {}
    for endpoint in rules.endpoints(server):
        if endpoint.mirror or any(known.spoken for known in failures.values()):
            continue
        session.auth.use(endpoint, login)
        try:
            async with session.ask("GET", endpoint, f"{endpoint.base}/v2/", "") as answer:
                await answer.read(_NO_MATTER)
                return
        except Failure as failure:
            failures[endpoint] = failure
        except NoAnswer as error:
            failures[endpoint] = from_no_answer(error)
    worst = most_telling(failures)
    if worst.verdict is Verdict.DENIED:
        raise Denied(f"login to {server} failed: {worst.words}", hint="check name and password")
    hint = worst.hint or "check the network and the registry's name, and try again"
    raise Unavailable(f"login to {server} failed: {worst.words}", hint=hint, retry_after=worst.retry_after)


async def keep_login(server: str, login: Credentials) -> str:
    """Keep a login; gives where (a file's path, or a helper's name). Raises Invalid, Unavailable."""
    path = config_path()
    helper = read_config(path).helper(server)
    key = names_of(server)[0]
    if helper is None:
        text = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
        await trio.to_thread.run_sync(_change, path, server, {"auth": text})
        return str(path)
    secret = {"ServerURL": key, "Username": login.username, "Secret": login.password}
    await _helped(helper, "store", msgspec.json.encode(secret))
    # Docker marks there what its helpers keep.
    await trio.to_thread.run_sync(_change, path, server, {})
    return f"docker-credential-{helper}"


async def forget_login(server: str) -> bool:
    """Forget a login wherever it is kept; false when there was none. Raises Invalid, Unavailable."""
    path = config_path()
    config = read_config(path)
    known = _keys(dict(config.auths or {}), server)
    helper = config.helper(server)
    if helper is not None:
        with suppress(Unavailable):  # Docker forgets what its file says even if the helper knows nothing
            await _helped(helper, "erase", names_of(server)[0].encode())
    if known:
        await trio.to_thread.run_sync(_change, path, server, None)
    return bool(known) or helper is not None


async def _helped(helper: str, action: str, data: bytes) -> None:
    try:
        program, code, _ = await run_helper(helper, action, data)
    except HelperFailed as error:
        raise Unavailable(str(error), hint=f"see credsStore and credHelpers in {config_path()}") from None
    if code != 0:
        raise Unavailable(f"{program} {action} failed with exit code {code}")


def _keys(auths: dict[str, Any], server: str) -> list[str]:
    return [key for key in auths if key in names_of(server) or host_of(key) in names_of(server)]


def _change(path: Path, server: str, entry: dict[str, str] | None) -> None:
    """Replace a server's entry in `auths`, or remove it; everything else stays."""
    path = Path(os.path.realpath(path))  # it may be a link into somebody's collection of dotfiles
    document: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        document = msgspec.json.decode(path.read_bytes() or b"{}", type=dict[str, Any])
    auths = document.get("auths") or {}
    for key in _keys(auths, server):
        del auths[key]
    if entry is not None:
        auths[names_of(server)[0]] = entry
    document["auths"] = auths
    data = msgspec.json.format(msgspec.json.encode(document), indent=2)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, data)
    except OSError as error:
        raise Invalid(f"can't write {path}: {error.strerror}", hint="DOCKER_CONFIG names another directory") from None


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
