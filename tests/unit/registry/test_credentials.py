"""Logins from Docker's configuration file and from helpers."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from scow.api import Invalid
from scow_plugins.registry._credentials import Credentials, HelperFailed, config_path, find_credentials

HUB = "https://index.docker.io/v1/"


def auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.fixture
def write(docker_config):
    def write(content) -> None:
        (docker_config / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))

    return write


@pytest.fixture
def helper(tmp_path, monkeypatch):
    """A program docker-credential-NAME on PATH that says what it is told to say."""

    def make(name: str, script: str) -> Path:
        directory = tmp_path / "bin"
        directory.mkdir(exist_ok=True)
        program = directory / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
        return program

    return make


async def test_no_file(docker_config):
    assert await find_credentials("docker.io") is None


@pytest.mark.parametrize(
    ("auths", "login", "expected"),
    [
        ({HUB: auth("me:pa:ss")}, "docker.io", Credentials("me", "pa:ss")),
        ({"docker.io": auth("me:x")}, "docker.io", Credentials("me", "x")),
        ({"https://registry-1.docker.io/v2/": auth("me:x")}, "docker.io", Credentials("me", "x")),
        ({"reg.example:5000": auth("me:x")}, "reg.example:5000", Credentials("me", "x")),
        ({"https://reg.example:5000/v1/": auth("me:x")}, "reg.example:5000", Credentials("me", "x")),
        ({"reg.example": auth("me:x")}, "reg.example:5000", None),
        ({"reg.example": auth("me:x")}, "docker.io", None),
        ({HUB: auth("me:x")}, "index.docker.io.evil.example", None),
        ({"a.example": {"username": "me", "password": "x"}}, "a.example", Credentials("me", "x")),
        ({"a.example": {**auth("me:"), "identitytoken": "t"}}, "a.example", Credentials("me", "", "t")),
        ({"a.example": auth("<token>:t")}, "a.example", Credentials(identity_token="t")),
        ({"a.example": {"registrytoken": "t"}}, "a.example", Credentials(registry_token="t")),
        ({"a.example": {}}, "a.example", None),
        ({"a.example": {"auth": "%%%"}}, "a.example", None),
    ],
)
async def test_the_file(write, auths, login, expected):
    write({"auths": auths, "HttpHeaders": {"X": "y"}})
    assert await find_credentials(login) == expected


@pytest.mark.parametrize("content", ["{", '{"auths": []}', '{"auths": {"a": {"auth": 5}}}', "\x00"])
async def test_a_broken_file_is_named(write, docker_config, content):
    write(content)
    with pytest.raises(Invalid, match=str(docker_config / "config.json")):
        await find_credentials("docker.io")


async def test_an_empty_file_is_no_file(write):
    write("")
    assert await find_credentials("docker.io") is None


async def test_a_helper_for_one_registry(write, helper):
    helper("one", 'read server; echo "{\\"Username\\": \\"$server\\", \\"Secret\\": \\"s\\"}"')
    write({"credHelpers": {"a.example": "one"}, "auths": {"b.example": auth("me:x")}})
    assert await find_credentials("a.example") == Credentials("a.example", "s")
    assert await find_credentials("b.example") == Credentials("me", "x")


async def test_a_store_for_all_is_asked_by_docker_hubs_old_name(write, helper):
    helper("all", 'read server; echo "{\\"Username\\": \\"<token>\\", \\"Secret\\": \\"$server\\"}"')
    write({"credsStore": "all", "auths": {HUB: {}}})
    assert await find_credentials("docker.io") == Credentials(identity_token=HUB)


async def test_a_helper_that_has_no_login(write, helper):
    helper("none", "echo 'credentials not found in native keychain'; exit 1")
    write({"credsStore": "none"})
    assert await find_credentials("docker.io") is None


@pytest.mark.parametrize("script", ["echo 'sesame'; exit 3", "echo 'sesame'", "echo '[]'"])
async def test_a_helper_that_fails_keeps_its_words(write, helper, script):
    helper("bad", script)
    write({"credsStore": "bad"})
    with pytest.raises(HelperFailed, match="docker-credential-bad") as error:
        await find_credentials("docker.io")
    assert "sesame" not in str(error.value)


async def test_a_helper_that_is_not_there(write, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    write({"credsStore": "desktop"})
    with pytest.raises(HelperFailed, match="docker-credential-desktop: No such file"):
        await find_credentials("docker.io")
    write({"credsStore": "desktop", "auths": {HUB: auth("me:x")}})
    assert await find_credentials("docker.io") == Credentials("me", "x")


async def test_a_helper_is_a_name_and_not_a_path(write):
    write({"credsStore": "../../tmp/x"})
    with pytest.raises(HelperFailed, match="not a credential helper's name"):
        await find_credentials("docker.io")


def test_no_secret_shows():
    assert repr(Credentials("me", "x", "y", "z")) == "Credentials()"


def test_where_the_file_lies():
    assert config_path({"DOCKER_CONFIG": "/x", "HOME": "/h"}) == Path("/x/config.json")
    assert config_path({"HOME": "/h"}) == Path("/h/.docker/config.json")
