"""Directives, comments, continuation lines, here-documents, flags; and errors that show the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Invalid, ScowError, Unsupported
from scow_plugins.builder._instructions import Cmd, CommandLine, Copy, Entrypoint, Env, Healthcheck, OnBuild, Run
from scow_plugins.builder._parse import heredoc_alone, parse
from scow_plugins.builder._stages import understand


def _one(text: str) -> object:
    return parse(b"FROM x\n" + text.encode())[1][1]


def _run(text: str) -> Run:
    found = _one(text)
    assert isinstance(found, Run)
    return found


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("RUN a b", "a b"),
        ("run   a  b  ", "a  b"),
        ("RUN a \\\n  b", "a   b"),
        ("RUN a \\\n# comment\n  # another\n  b", "a   b"),
        ("RUN a \\\n\n  b", "a   b"),
        ("RUN a \\  \nb", "a b"),
        ("RUN a\\\\", "a\\\\"),
        ("RUN echo '# no comment'", "echo '# no comment'"),
        ('RUN ["a", 1', '["a", 1'),
        ("RUN [ -f x ]", "[ -f x ]"),
        ("RUN a \\", "a"),
    ],
)
def test_lines_are_joined(text: str, command: str) -> None:
    run = _run(text)
    assert run.command.shell
    assert run.command.words == (command,)


def test_exec_form() -> None:
    run = _run('RUN ["a", "b c", "\\u00e9"]')
    assert not run.command.shell
    assert run.command.words == ("a", "b c", "é")


def test_crlf_and_a_byte_order_mark() -> None:
    file, found = parse(b"\xef\xbb\xbf# escape=`\r\nFROM x\r\nRUN a `\r\n  b\r\nRUN <<E\r\nhi\r\nE\r\n")
    assert file.escape == "`"
    assert isinstance(found[1], Run)
    assert found[1].command.words == ("a   b",)
    assert isinstance(found[2], Run)
    assert found[2].heredocs[0].content == "hi\r\n"


def test_directives_count_only_at_the_top() -> None:
    file, _ = parse(
        b"# syntax=docker/dockerfile:1.7\n# check=skip=JSONArgsRecommended;error=true\nFROM x\n# escape=`\n"
    )
    assert (file.syntax, file.escape, file.skip, file.check_error) == (
        "docker/dockerfile:1.7",
        "\\",
        {"JSONArgsRecommended"},
        True,
    )
    assert parse(b"\n# escape=`\nFROM x\n")[0].escape == "\\"
    assert parse(b"# hello\n# escape=`\nFROM x\n")[0].escape == "\\"


def test_a_strangers_frontend_is_refused() -> None:
    with pytest.raises(Unsupported, match="frontend me/mine:1 can't be used"):
        parse(b"# syntax=me/mine:1\nFROM x\n")


def test_several_heredocs() -> None:
    copy = _one("COPY <<a.txt <<-'b' /x/\n$one\na.txt\n\t$two\n\tb\n")
    assert isinstance(copy, Copy)
    assert copy.sources == ()
    assert [(each.name, each.content, each.expand) for each in copy.heredocs] == [
        ("a.txt", "$one\n", True),
        ("b", "$two\n", False),
    ]


def test_heredocs_are_quoted_as_in_a_shell_whatever_escapes() -> None:
    _, found = parse(b"# escape=`\nFROM x\nCOPY <<\\EOF /x\n$a\nEOF\nRUN <<-`E\n`E\n")
    copy, run = found[1:]
    assert isinstance(copy, Copy)
    assert isinstance(run, Run)
    assert (copy.sources, copy.target) == ((), "/x")
    assert [(each.name, each.expand) for each in (*copy.heredocs, *run.heredocs)] == [("EOF", False), ("`E", True)]


def test_a_heredoc_that_is_the_script() -> None:
    run = _run("RUN <<EOF\n#!/bin/x\na\nEOF\n")
    alone = heredoc_alone(run)
    assert alone is not None
    assert alone.content == "#!/bin/x\na\n"
    assert heredoc_alone(_run("RUN cat <<EOF > /f\nx\nEOF\n")) is None
    assert _run("RUN echo '<<EOF'").heredocs == ()
    assert _run("RUN cat <<< word").heredocs == ()
    # The shell's own way to write them, of which BuildKit knows since 0.22.
    spaced = _run("RUN cat << EOF > /f\nx\nEOF\n")
    assert [(each.name, each.content) for each in spaced.heredocs] == [("EOF", "x\n")]
    alone = heredoc_alone(_run("RUN << 'EOF'\nx\nEOF\n"))
    assert alone is not None
    assert alone.content == "x\n"
    assert _run("RUN echo $((1 << 2)) x\n").heredocs == ()


def test_flags() -> None:
    copy = _one('COPY --from=a --chown="1:2" --exclude=*.x --exclude=y --link --parents=false a b/')
    assert isinstance(copy, Copy)
    assert (copy.stage, copy.chown, copy.exclude, copy.link, copy.parents) == ("a", "1:2", ("*.x", "y"), True, False)
    run = _run("RUN --mount=type=cache,dst=/c,sharing=locked --mount=target=/t --network=none -- --x")
    assert [(mount.kind, mount.get("target")) for mount in run.mounts] == [("cache", "/c"), ("bind", "/t")]
    assert run.network == "none"
    assert run.command.words == ("--x",)


def test_pairs_and_durations() -> None:
    env = _one('ENV a=b c="d e" f=\\ g')
    assert isinstance(env, Env)
    assert env.values == (("a", "b"), ("c", '"d e"'), ("f", "\\ g"))
    legacy = _one("ENV a b c=d")
    assert isinstance(legacy, Env)
    assert (legacy.values, legacy.legacy) == ((("a", "b c=d"),), True)
    health = _one("HEALTHCHECK --interval=1m30s --retries=3 CMD x")
    assert isinstance(health, Healthcheck)
    assert (health.interval, health.retries) == (90 * 10**9, 3)
    signed = _one("HEALTHCHECK --interval=+5s --timeout= --retries= CMD x")
    assert isinstance(signed, Healthcheck)
    assert (signed.interval, signed.timeout, signed.retries) == (5 * 10**9, None, None)


@pytest.mark.parametrize("name", ["RUN", "CMD", "ENTRYPOINT"])
def test_without_a_command_it_is_an_empty_line_for_the_shell(name: str) -> None:
    found = _one(name)
    assert isinstance(found, Run | Cmd | Entrypoint)
    assert found.command == CommandLine(("",), shell=True)


def test_a_flag_that_is_empty_says_nothing() -> None:
    copy = _one("COPY --chmod= --chown= a b")
    assert isinstance(copy, Copy)
    assert (copy.chmod, copy.chown) == ("", "")


def test_triggers() -> None:
    trigger = _one("ONBUILD COPY --from=a b c")
    assert isinstance(trigger, OnBuild)
    assert trigger.text == "COPY --from=a b c"
    assert isinstance(trigger.trigger, Copy)


@pytest.mark.parametrize(
    ("text", "says", "caret"),
    [
        ("RNU x", "2: unknown instruction: RNU", "RNU"),
        ("COPY --frm=a b c", "2: unknown flag: --frm", "--frm"),
        ("COPY --link --link b c", "2: duplicate flag: --link", "--link"),
        ("COPY a", "2: COPY requires at least two arguments", "a"),
        ("ENV", "2: ENV requires an argument", "ENV"),
        ("ENV a=b c", "2: can't find = in 'c'", "c"),
        ("ENV a", "2: ENV must have two arguments", "a"),
        ("ENV =x", "2: ENV names can not be blank", "=x"),
        ("RUN <<EOF\nx", "2: unterminated heredoc: no line says EOF", "<<"),
        ("RUN --mount=type=nfs x", "2: unsupported mount type 'nfs'", "--mount"),
        ("RUN --mount=type=cache x", "2: a mount of type cache needs a target", "--mount"),
        ("RUN --mount=type=bind,target=/a,size=3 x", "2: unexpected key 'size'", "--mount"),
        ("RUN --mount=type=secret,id=a,src=b x", "2: a secret's id and source are the same thing", "--mount"),
        ("""RUN --mount='type=cache,target=/a,id=x"y"' x""", "2: invalid mount", "--mount"),
        ("COPY --link= a b", "2: missing a value on flag: --link", "--link"),
        ("HEALTHCHECK --interval=-5s CMD y", "2: interval '-5s' cannot be less than 1ms", "--interval"),
        ("RUN --network=foo x", "2: unsupported network mode 'foo'", "--network"),
        ("ONBUILD ONBUILD RUN x", "2: chaining ONBUILD", None),
        ("ONBUILD FROM x", "2: FROM isn't allowed as an ONBUILD trigger", None),
        ("SHELL x", "2: SHELL requires the arguments to be in JSON form", "x"),
        ("HEALTHCHECK x", "2: unknown type 'x' in HEALTHCHECK", "x"),
        ("HEALTHCHECK --interval=x CMD y", "2: invalid duration 'x'", "--interval"),
        ("CMD [1]", "2: only strings are allowed in the JSON form", "[1]"),
        ("FROM a b", "2: FROM requires either one or three arguments", "a b"),
        ("FROM a AS 1b", "2: invalid name for build stage: '1b'", "1b"),
        ("COPY --from=$x a b", "2: --from doesn't take variables", "--from"),
        ("COPY a <<EOF\nx\nEOF", "2: COPY cannot accept a heredoc as a destination", None),
        ("COPY --chown a b", "2: missing a value on flag: --chown", "--chown"),
        ("RUN a \\\n \\\n --x\nFOO", "5: unknown instruction: FOO", "FOO"),
    ],
)
def test_mistakes_are_shown(text: str, says: str, caret: str | None) -> None:
    with pytest.raises(Invalid) as caught:
        parse(b"FROM x\n" + text.encode(), "df")
    message = caught.value.message
    assert message.startswith(f"df:{says}")
    head, shown, below = message.split("\n")
    assert head
    if caret is not None:
        at = below.index("^")
        assert shown[at : at + len(caret)] == caret
        assert below.count("^") >= len(caret)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file has no instructions"),
        ("# only a comment", "the file has no instructions"),
        ("ARG x=1", "the file has no FROM"),
        ("RUN x\nFROM y", "RUN comes before the first FROM"),
        ("# escape=x\nFROM y", "must be"),
        ("# escape=\\\n# escape=\\\nFROM y", "only one escape parser directive"),
        ("FROM x\nRUN \0", "zero byte"),
    ],
)
def test_files_that_are_none(text: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        understand(text.encode())


_LINES = st.sampled_from(
    [
        "FROM a",
        "RUN <<A",
        "A",
        "COPY a b",
        "\\",
        "# x",
        "",
        "ENV a=b",
        'CMD ["a"',
        "RUN x \\",
        "ONBUILD",
        "ARG $",
        "<<A",
    ]
)


@given(st.one_of(st.binary(max_size=200), st.lists(_LINES, max_size=12).map(lambda lines: "\n".join(lines).encode())))
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    try:
        found = understand(data)
    except ScowError as error:
        assert error.message  # noqa: PT017 - either outcome is right, and this one must say something
        return
    for stage in found.stages:
        for each in (stage.start, *stage.body):
            # Every character of a statement can be found in the file.
            statement = each.at
            for offset, char in enumerate(statement.text):
                place = statement.place(offset)
                assert place.source.lines[place.line - 1][place.column] == char
