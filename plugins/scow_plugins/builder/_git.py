"""Git repositories as directories: a context, or what ADD takes in. The program `git` does the work.

A repository is a stranger. No hook of it runs, no configuration but our own counts, and only http, https, ssh and git
are spoken, so that neither it nor its submodules can name files of this machine; nobody is asked for a password.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from scow.api import Conflict, Corrupt, Denied, Exhausted, Invalid, NotFound, ScowError, Unavailable, Unsupported
from scow.api.linux import Resolve, open_beneath
from scow_plugins.builder._gitref import GitRef, Secret, authorization, pick, without_password

_PASSED: Final = (
    "PATH", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "HTTPS_PROXY", "no_proxy",
    "NO_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip
_SETTINGS: Final = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("advice.detachedHead", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("credential.helper", ""),
)
_STDERR: Final = 4096
_IN_ROOT: Final = Resolve.IN_ROOT | Resolve.NO_MAGICLINKS
#: What we call a fetched commit in our own repository.
_MARK: Final = "refs/scow/wanted"


class Git:
    """Git for one repository, in a private directory that goes with the build."""

    def __init__(self, source: GitRef, place: Path, secret: Secret, *, agent: str = "") -> None:
        self._source = source
        self._place = place
        program = shutil.which("git")
        if program is None:
            raise Unsupported(
                f"{source.shown} can't be fetched: the program git is not installed",
                hint="install git, or give the build a directory",
            )
        self._program = program
        self._env = _environment(source, place, secret, agent)

    async def resolve(self) -> tuple[str, str]:
        """The name to fetch, and the commit that it means now. Raises NotFound, Unavailable, Denied, Corrupt."""
        source = self._source
        if source.commit:
            name, commit = source.commit, source.commit
        else:
            wanted = [source.ref, f"{source.ref}^{{}}"] if source.ref else ["HEAD"]
            listing = await self._git("ls-remote", "--", source.remote, *wanted)
            name, commit = pick(listing, source.ref)
            if not commit:
                raise NotFound(f"{source.shown} has no {source.ref or 'HEAD'}")
        if not commit.startswith(source.checksum):
            raise Corrupt(f"{source.shown}: {source.ref or 'HEAD'} is the commit {commit}, not {source.checksum}")
        return name, commit

    async def checkout(self, name: str, commit: str, *, keep: bool) -> Path:
        """The commit's files in a new directory, with submodules. Raises as `resolve`, Invalid, Exhausted."""
        tree = self._place / "tree"
        await self._git("init", "-q", "--template=", "--", str(tree))
        await self._fetch(tree, name, commit)
        found = (await self._git("rev-parse", f"{_MARK}^{{commit}}", at=tree)).strip()
        if found != commit:
            raise Conflict(f"{self._source.shown}: {name} has moved from {commit} to {found}", hint="build again")
        await self._git("checkout", "-q", "--detach", commit, "--", at=tree)
        if self._source.submodules and await trio.Path(tree, ".gitmodules").exists():
            await self._submodules(tree)
        moment = int((await self._git("log", "-1", "--format=%ct", commit, "--", at=tree)).strip() or 0)
        if keep:
            await self._git("remote", "add", "origin", without_password(self._source.remote), at=tree)
            await self._git("update-ref", "-d", _MARK, at=tree)
        await trio.to_thread.run_sync(_settle, tree, moment, keep)
        return tree

    async def _fetch(self, tree: Path, name: str, commit: str) -> None:
        what = f"+{name}:{_MARK}"
        fetch = ("fetch", "-q", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        try:
            await self._git(*fetch, "--depth=1", "--", self._source.remote, what, at=tree)
            return
        except (Unavailable, NotFound):
            # Old servers give neither shallow histories nor commits that no name stands for.
            heads = "+refs/heads/*:refs/remotes/origin/*"
        try:
            await self._git(*fetch, "--", self._source.remote, heads, "+refs/tags/*:refs/tags/*", at=tree)
            await self._git("update-ref", _MARK, commit, at=tree)
        except Invalid:
            raise NotFound(f"{self._source.shown} has no commit {commit}") from None

    async def _submodules(self, tree: Path) -> None:
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--checkout")
        # Relative URLs are relative to where the repository came from.
        await self._git("config", "remote.origin.url", self._source.remote, at=tree)
        try:
            try:
                await self._git(*update, "--depth=1", at=tree)
            except (Unavailable, NotFound, Invalid):
                await self._git(*update, at=tree)
        finally:
            await self._git("config", "--remove-section", "remote.origin", at=tree)

    async def _git(self, *words: str, at: Path | None = None) -> str:
        """Run git; gives its output. Raises what its complaint means."""
        command = [self._program, *(["-C", str(at)] if at is not None else []), *words]
        done = await trio.run_process(
            command,
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=self._env,
            umask=0o022,
            start_new_session=True,
            deliver_cancel=_kill,
        )
        if done.returncode:
            raise _meaning(self._source, words[0], done.stderr[-_STDERR:].decode(errors="replace"))
        return done.stdout.decode(errors="surrogateescape")


async def _kill(process: trio.Process) -> None:
    """Git's helpers go with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment(source: GitRef, place: Path, secret: Secret, agent: str) -> dict[str, str]:
    settings = list(_SETTINGS)
    if header := authorization(source.remote, secret):
        # In the environment, which only we can read, and not among the arguments, which everybody can.
        origin = source.remote.split("/", 3)[:3]
        settings.append((f"http.{'/'.join(origin)}/.extraheader", header))
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    if agent:
        env["SSH_AUTH_SOCK"] = agent
    env |= {
        "HOME": str(place),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ALLOW_PROTOCOL": "http:https:ssh:git",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_CONFIG_COUNT": str(len(settings)),
    }
    for number, (name, value) in enumerate(settings):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return env


_DENIED: Final = (
    "could not read username", "authentication failed", "permission denied", "terminal prompts disabled",
    "host key verification failed", "error: 403",
)  # fmt: skip
_MISSING: Final = ("couldn't find remote ref", "not found", "does not appear to be a git repository", "not exported")
_FULL: Final = ("no space left", "disk quota")


def _meaning(source: GitRef, doing: str, said: str) -> ScowError:
    """What git complains of, as an error of ours."""
    lines = [line for line in said.strip().splitlines() if line.strip()]
    shown = without_passwords(lines[-1] if lines else "it doesn't say why", source)
    for line in lines:
        if line.startswith(("fatal:", "error:")):
            shown = without_passwords(line, source)
            break
    message = f"git {doing} of {source.shown}: {shown}"
    lower = said.lower()
    if any(each in lower for each in _FULL):
        return Exhausted(message)
    if "protocol" in lower and "not allowed" in lower:
        return Invalid(message, hint="only http, https, ssh and git are spoken")
    if any(each in lower for each in _DENIED):
        return Denied(message, hint="give a login: --secret id=GIT_AUTH_TOKEN,env=…; over ssh, an agent with the key")
    if any(each in lower for each in _MISSING):
        return NotFound(message)
    if doing in ("ls-remote", "fetch", "submodule"):
        return Unavailable(message)
    return Invalid(message)


def without_passwords(line: str, source: GitRef) -> str:
    """A line of git's without the login that the URL may have."""
    return line.replace(source.remote, source.shown)


def _settle(tree: Path, moment: int, keep: bool) -> None:
    """Give all files the commit's time, so that a layer can be made again; git's own files go unless they are kept."""
    if keep:
        shutil.rmtree(tree / ".git" / "logs", ignore_errors=True)
    else:
        shutil.rmtree(tree / ".git")
    for directory, names in _directories(tree):
        for name in names:
            path = os.path.join(directory, name)
            if name == ".git" and directory != str(tree) and not keep:
                os.unlink(path)  # a submodule's, which says where git's files of it are
                continue
            os.utime(path, (moment, moment), follow_symlinks=False)
        os.utime(directory, (moment, moment))


def _directories(tree: Path) -> Iterator[tuple[str, list[str]]]:
    """Directories with the names in them, what is inside first."""
    for directory, inner, files in os.walk(tree, topdown=False, followlinks=False):
        yield directory, [*inner, *files]


def inside(tree: Path, subdir: str, shown: str) -> Path:
    """A directory of a checkout, over links, which stay in it. Raises NotFound."""
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_beneath(root, subdir, os.O_PATH | os.O_DIRECTORY, resolve=_IN_ROOT)
    except OSError:
        raise NotFound(f"{shown} has no directory {subdir}") from None
    finally:
        os.close(root)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)
