"""Docker's flag grammar."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.cli._flags import Args, Command, Flag, UsageError, parse

FLAGS = (
    Flag("interactive", "", short="i"),
    Flag("tty", "", short="t"),
    Flag("rm", ""),
    Flag("sig-proxy", "", default=True),
    Flag("name", "", "string"),
    Flag("publish", "", "list", "p"),
    Flag("memory", "", "bytes", "m"),
    Flag("cpus", "", "decimal"),
    Flag("last", "", "int", "n"),
    Flag("network", "", "string", also=("net",)),
)
RUN = Command("IMAGE", FLAGS, least=1, most=None, interspersed=False, refused={"--gpus": "", "-s": "no sizes"})
PS = Command("", FLAGS, most=2)


def run(*words: str) -> Args:
    return parse(RUN, list(words))


@pytest.mark.parametrize("words", [["-it"], ["-i", "-t"], ["--interactive", "--tty=true"], ["-i=1", "-t=T"]])
def test_switches(words: list[str]) -> None:
    args = run(*words, "image")
    assert args.on("interactive")
    assert args.on("tty")
    assert args.words == ("image",)


@pytest.mark.parametrize(
    "words",
    [["-p", "1:2"], ["-p1:2"], ["-p=1:2"], ["--publish", "1:2"], ["--publish=1:2"], ["-itp1:2"], ["-itp", "1:2"]],
)
def test_values(words: list[str]) -> None:
    assert run(*words, "image").all("publish") == ("1:2",)


def test_lists_grow_and_the_last_of_others_counts() -> None:
    args = run("-p", "1", "--name", "a", "-p2", "--name=b", "image")
    assert args.all("publish") == ("1", "2")
    assert args.text("name") == "b"
    assert args.given == {"publish", "name"}


def test_values_may_look_like_flags_or_be_empty() -> None:
    assert run("--name", "--rm", "image").text("name") == "--rm"
    assert run("--name=", "image").text("name") == ""
    assert run("--name", "", "image").text("name") == ""


def test_flags_end_at_the_image() -> None:
    assert run("--rm", "image", "-it", "--name", "x", "--").words == ("image", "-it", "--name", "x", "--")


def test_two_dashes_end_flags() -> None:
    assert run("--rm", "--", "-image", "--rm").words == ("-image", "--rm")
    assert parse(PS, ["a", "--", "--rm"]).words == ("a", "--rm")


def test_flags_and_words_may_mix_elsewhere() -> None:
    args = parse(PS, ["a", "--rm", "b"])
    assert args.words == ("a", "b")
    assert args.on("rm")


def test_a_dash_alone_is_a_word() -> None:
    assert run("-").words == ("-",)


def test_defaults() -> None:
    args = run("image")
    assert args.on("sig-proxy")
    assert not args.on("rm")
    assert args.text("name") is None
    assert args.number("memory") is None
    assert args.decimal("cpus") is None
    assert not run("--sig-proxy=false", "image").on("sig-proxy")


def test_second_names() -> None:
    assert run("--net", "none", "image").text("network") == "none"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--foo", "image"], "unknown flag: --foo"),
        (["--nam", "x", "image"], "unknown flag: --nam"),
        (["-iQ", "image"], "unknown shorthand flag: 'Q' in -iQ"),
        (["--name"], "flag needs an argument: --name"),
        (["-p"], "flag needs an argument: 'p' in -p"),
        (["-m", "12x", "image"], 'invalid argument "12x" for "-m, --memory" flag: '),
        (["--rm=4", "image"], 'invalid argument "4" for "--rm" flag: '),
        (["--gpus", "all", "image"], "--gpus is not supported by scow"),
        (["-s", "image"], "-s is not supported by scow"),
        ([], "this command needs at least 1 argument"),
    ],
)
def test_errors(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(*words)
    assert caught.value.message.startswith(message)


def test_counts() -> None:
    with pytest.raises(UsageError, match="takes at most 2 arguments"):
        parse(PS, ["a", "b", "c"])
    with pytest.raises(UsageError, match="takes no arguments"):
        parse(Command(""), ["a"])
    with pytest.raises(UsageError, match="needs exactly 1 argument"):
        parse(Command("", least=1, most=1), [])


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_needs_no_image(word: str) -> None:
    assert run(word).on("help")


@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    with suppress(UsageError):
        run(*words)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_words_after_the_image_are_the_containers(words: list[str]) -> None:
    assert run("--rm", "image", *words).words == ("image", *words)
