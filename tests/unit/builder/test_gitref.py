"""What names a repository, and which part of it."""

from __future__ import annotations

import base64

import pytest

from scow.api import Invalid
from scow_plugins.builder._contexts import is_remote
from scow_plugins.builder._gitref import GitRef, authorization, is_git, parse_git, pick, without_password

A, B, C = "a" * 40, "b" * 40, "c" * 40


@pytest.mark.parametrize(
    ("text", "git"),
    [
        ("https://x.invalid/a.git", True),
        ("https://x.invalid/a.git#main", True),
        ("https://x.invalid/a.git?tag=v1", True),
        ("http://x.invalid/a.git", True),
        ("git://x.invalid/a", True),
        ("ssh://git@x.invalid/a", True),
        ("git@x.invalid:some/repo.git", True),
        ("github.com/some/repo", True),
        ("https://x.invalid/a.tar.gz", False),
        ("https://x.invalid/a.gitx", False),
        ("https://x.invalid/a?b=.git", False),
        ("directory", False),
        ("a.git", False),
        ("https://[::1/a.git", False),
        ("file:///a.git", False),
    ],
)
def test_which_sources_are_repositories(text: str, *, git: bool) -> None:
    assert is_git(text) is git
    assert is_remote(text) is (git or text.startswith("http"))


def test_forms() -> None:
    assert parse_git("github.com/some/repo") == GitRef("https://github.com/some/repo")
    assert parse_git("git@h:r.git#v1:a/b/") == GitRef("git@h:r.git", "v1", "a/b")
    assert parse_git("https://h/r.git#:a") == GitRef("https://h/r.git", "", "a")
    found = parse_git(f"https://h/r.git?branch=x&subdir=d&checksum={A}&keep-git-dir&submodules=0")
    assert found == GitRef("https://h/r.git", "refs/heads/x", "d", A, True, False)
    assert parse_git(f"https://h/r.git#{A}").commit == A
    assert parse_git(f"https://h/r.git?commit={A}").commit == A
    assert parse_git(f"https://h/r.git?commit={A}&tag=x").commit == ""


@pytest.mark.parametrize(
    "text",
    [
        "https://h/r.git#--upload-pack=touch",
        "https://h/r.git#a b",
        "https://h/r.git#a\nb",
        "https://h/r.git?what=x",
        "https://h/r.git?tag=a&branch=b",
        "https://h/r.git?tag=a&tag=a",
        "https://h/r.git?tag=a#b",
        "https://h/r.git?subdir=a#b:c",
        "https://h/r.git?checksum=zz",
        "https://h/r.git?submodules=perhaps",
        f"https://h/r.git?checksum={A}&commit={B}",
        "ssh://[h/r.git",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(Invalid):
        parse_git(text)


def test_no_message_repeats_a_password() -> None:
    with pytest.raises(Invalid) as error:
        parse_git("https://me:sesame@h/r.git?tag=a&branch=b")
    assert "sesame" not in error.value.message


def test_what_a_server_lists() -> None:
    listing = f"{A}\tHEAD\n{A}\trefs/heads/main\n{B}\trefs/tags/main\n{B}\trefs/tags/v1\n{C}\trefs/tags/v1^{{}}\nwhat\n"
    assert pick(listing, "") == ("HEAD", A)
    assert pick(listing, "main") == ("refs/heads/main", A)
    assert pick(listing, "refs/tags/main") == ("refs/tags/main", B)
    assert pick(listing, "v1") == ("refs/tags/v1", C)
    assert pick(listing, "none") == ("", "")
    assert pick("", "") == ("", "")


def test_logins() -> None:
    secrets = {"GIT_AUTH_TOKEN": b"all\n", "GIT_AUTH_TOKEN.one": b"t", "GIT_AUTH_HEADER.two": b"bearer x"}
    token = base64.b64encode(b"x-access-token:t").decode()
    assert authorization("https://one/r.git", secrets.get) == f"Authorization: basic {token}"
    assert authorization("https://two/r.git", secrets.get) == "Authorization: bearer x"
    assert authorization("https://three/r.git", secrets.get).startswith("Authorization: basic ")
    assert authorization("ssh://one/r.git", secrets.get) == ""
    assert authorization("https://one/r.git", {}.get) == ""
    with pytest.raises(Invalid):
        authorization("https://x/", {"GIT_AUTH_HEADER": b"a\r\nHost: b"}.get)
    assert without_password("https://user:word@h/r.git") == "https://h/r.git"
    assert without_password("ssh://git@h/r.git") == "ssh://git@h/r.git"
    assert without_password("git@h:r.git") == "git@h:r.git"
