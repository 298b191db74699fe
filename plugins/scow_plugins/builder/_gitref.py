"""What names a git repository, and which part of it: Docker's forms. Pure.

    https://host/repo.git  https://host/repo.git#ref:directory  git@host:repo.git
    ssh://…  git://…  github.com/some/repo
    https://host/repo.git?branch=main&subdir=a&checksum=…&keep-git-dir=true&submodules=false

(docs.docker.com, "Build context", "Git repositories"; buildkit util/gitutil/git_ref.go)
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from scow.api import Invalid

#: user@host:path, as scp(1) has it.
_SCP: Final = re.compile(r"[A-Za-z0-9._~-]+@[A-Za-z0-9.-]+:[^/].*|[A-Za-z0-9._~-]+@[A-Za-z0-9.-]+:/.*")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CHECKSUM: Final = re.compile(r"[0-9a-f]{7,64}")


@dataclass(frozen=True, slots=True)
class GitRef:
    """A repository, what to check out of it (empty: its HEAD), and a directory in it.

    `checksum` is a commit, or the beginning of one, that it must be. `keep` None: nothing was said.
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep: bool | None = None
    submodules: bool = True

    @property
    def commit(self) -> str:
        """The commit, where the reference itself says it in full; else empty."""
        if _COMMIT.fullmatch(self.ref):
            return self.ref
        return self.checksum if _COMMIT.fullmatch(self.checksum) and not self.ref else ""

    @property
    def shown(self) -> str:
        """The repository without a password."""
        return without_password(self.remote)


def is_git(text: str) -> bool:
    """Whether a source or a context names a git repository."""
    if text.startswith(("github.com/", "git://", "ssh://")) or _SCP.fullmatch(text):
        return True
    try:
        parts = urllib.parse.urlsplit(text)
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and parts.path.endswith(".git")


def parse_git(text: str) -> GitRef:
    """Read a reference that `is_git` knows. Raises Invalid."""
    if text.startswith("github.com/"):
        text = f"https://{text}"
    rest, _, fragment = text.partition("#")
    rest, _, query = rest.partition("?")
    ref, _, subdir = fragment.partition(":")
    try:
        urllib.parse.urlsplit(rest)
    except ValueError as error:
        raise Invalid(f"{rest!r} is no repository: {error}") from None
    found = GitRef(rest, ref, subdir)
    if query:
        found = _queried(found, query)
    if found.ref.startswith("-") or any(each in "\0\n ~^?*[\\" or ord(each) < 32 for each in found.ref):
        raise Invalid(f"{found.ref!r} is no name of a branch, a tag or a commit")
    if found.checksum and not _CHECKSUM.fullmatch(found.checksum):
        raise Invalid(
            f"invalid checksum {found.checksum!r} for {found.shown}", hint="write a commit's hexadecimal name"
        )
    return replace(found, subdir=found.subdir.strip("/"))


def _queried(found: GitRef, query: str) -> GitRef:
    text = found.shown
    values: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        if name in values:
            raise Invalid(f"{text}: {name} stands there twice")
        if name not in _KEYS:
            raise Invalid(f"{text}: unexpected query {name!r}", hint=f"there are {', '.join(_KEYS)}")
        values[name] = value
    refs = [prefix + values[name] for name, prefix in _REFS.items() if values.get(name)]
    if len(refs) + bool(found.ref) > 1:
        raise Invalid(f"{text}: more than one of #ref, ref, branch and tag")
    if found.subdir and values.get("subdir"):
        raise Invalid(f"{text}: a directory stands there twice")
    sums = [values[name] for name in ("checksum", "commit") if values.get(name)]
    if len(set(sums)) > 1:
        raise Invalid(f"{text}: checksum and commit differ")
    keep = values.get("keep-git-dir")
    return replace(
        found,
        ref=refs[0] if refs else found.ref,
        subdir=values.get("subdir") or found.subdir,
        checksum=sums[0] if sums else "",
        keep=None if keep is None else _truth(keep, text),
        submodules=_truth(values.get("submodules", "true"), text),
    )


_REFS: Final = {"ref": "", "branch": "refs/heads/", "tag": "refs/tags/"}
_KEYS: Final = (*_REFS, "subdir", "checksum", "commit", "keep-git-dir", "submodules")


def _truth(value: str, text: str) -> bool:
    if value.lower() in ("", "1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise Invalid(f"{text}: {value!r} is neither true nor false")


def without_password(url: str) -> str:
    """A URL without what logs in."""
    parts = urllib.parse.urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    user, _, host = parts.netloc.rpartition("@")
    kept = f"{user}@{host}" if ":" not in user and parts.scheme == "ssh" else host
    return urllib.parse.urlunsplit(parts._replace(netloc=kept))


def pick(listing: str, ref: str) -> tuple[str, str]:
    """What `git ls-remote` says of a ref: its full name and commit; both empty when it isn't there.

    Branches before tags, as git-checkout(1); of an annotated tag the commit that it stands on.
    """
    known = {name: sha for sha, _, name in (line.partition("\t") for line in listing.splitlines()) if name}
    if not ref:
        return ("HEAD", known["HEAD"]) if "HEAD" in known else ("", "")
    whole = "refs/" + ref.removeprefix("refs/")
    head = "refs/heads/" + ref.removeprefix("refs/heads/")
    tag = "refs/tags/" + ref.removeprefix("refs/tags/")
    for name in (whole, head, tag):
        if name in known:
            return name, known.get(f"{name}^{{}}", known[name])
    return "", ""


#: Gives a secret's content by its ID; None when it wasn't given.
Secret = Callable[[str], bytes | None]


def authorization(remote: str, secret: Secret) -> str:
    """The header that logs in to an http(s) repository, of the secrets GIT_AUTH_TOKEN and GIT_AUTH_HEADER.

    With `.host` behind it a secret is for that host alone. Empty when there is none. Raises Invalid.
    """
    import base64

    parts = urllib.parse.urlsplit(remote)
    if parts.scheme not in ("http", "https"):
        return ""
    for host in (f".{parts.hostname}", ""):
        if (header := secret(f"GIT_AUTH_HEADER{host}")) is not None:
            value = header.decode(errors="surrogateescape").strip()
        elif (token := secret(f"GIT_AUTH_TOKEN{host}")) is not None:
            value = "basic " + base64.b64encode(b"x-access-token:" + token.strip()).decode()
        else:
            continue
        if "\n" in value or "\r" in value:
            raise Invalid("the secret for git has more than one line")
        return f"Authorization: {value}"
    return ""
