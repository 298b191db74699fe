"""Stages, scopes and configurations, without anything that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from scow.api import Invalid, Platform, Unsupported
from scow_plugins.builder._instructions import Instruction
from scow_plugins.builder._lint import lint
from scow_plugins.builder._plan import Options, Plan, make_plan
from scow_plugins.builder._stages import understand
from scow_plugins.builder._steps import CopyOp, Origin, PlannedStage, RunOp, WorkdirOp

AMD = Platform("linux", "amd64")
BASE: dict[str, Any] = {
    "Env": ["PATH=/bin", "BASED=yes"],
    "Cmd": ["sh"],
    "Entrypoint": ["/entry"],
    "WorkingDir": "/base",
    "User": "someone",
    "ExposedPorts": {"1/tcp": {}},
    "Labels": {"a": "base"},
    "Volumes": {"/v": {}},
    "OnBuild": ["RUN trigger $LATE", "COPY --from=tools /x /y"],
}


async def plan(text: str, *, base: Mapping[str, Any] | None = None, **options: Any) -> Plan:
    async def config(name: str, platform: Platform, said: Instruction) -> Mapping[str, Any]:
        return {"config": base if base is not None and name == "x" else {"Env": ["PATH=/bin"]}}

    return await make_plan(understand(text.encode()), Options(AMD, AMD, **options), config)


async def last(text: str, **options: Any) -> PlannedStage:
    found = await plan(text, **options)
    return found.stages[found.target]


def run_of(stage: PlannedStage, number: int = 0) -> RunOp:
    return [step.op for step in stage.steps if isinstance(step.op, RunOp)][number]


async def test_scopes() -> None:
    stage = await last(
        "ARG A=global\nARG ONLY=global\nFROM x\nRUN a $A\nARG A\nARG B=b$A\nENV A=env\nARG GIVEN=no\nRUN b\n",
        build_args={"GIVEN": "yes", "HTTP_PROXY": "http://p", "UNUSED": "u"},
    )
    first, second = run_of(stage), run_of(stage, 1)
    assert first.env == ("PATH=/bin",)
    assert set(second.env) == {"PATH=/bin", "A=env", "B=bglobal", "GIVEN=yes"}
    assert second.proxies == ("HTTP_PROXY=http://p", "http_proxy=http://p")
    assert [step.created_by for step in stage.steps if "RUN" in step.created_by][1] == (
        "RUN |3 A=env B=bglobal GIVEN=yes /bin/sh -c b # buildkit"
    )


async def test_an_instruction_sees_the_values_from_before_it() -> None:
    stage = await last("FROM x\nENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n")
    assert stage.config["Env"] == ["PATH=/bin", "abc=bye", "def=hello", "ghi=bye"]


async def test_of_arguments_and_environment_the_later_counts() -> None:
    text = """FROM x
ARG A=arg Z
ENV A=env
RUN one
ARG A=again
ENV B=$A
RUN two
ARG A Z
RUN three
ENV Z=late
"""
    stage = await last(text)
    assert run_of(stage).env == ("PATH=/bin", "A=env")
    assert run_of(stage, 1).env == ("PATH=/bin", "A=again", "B=again")
    # An argument without a value takes nothing away.
    assert run_of(stage, 2).env == run_of(stage, 1).env
    assert stage.config["Env"] == ["PATH=/bin", "A=env", "B=again", "Z=late"]
    history = [step.created_by for step in stage.steps if step.created_by.startswith("RUN")]
    assert history[0] == "RUN |2 A=env Z= /bin/sh -c one # buildkit"
    assert history[2] == "RUN |2 A=again Z= /bin/sh -c three # buildkit"


async def test_proxies_count_in_both_spellings_and_more_than_the_environment() -> None:
    args = {"HTTP_PROXY": "p", "no_proxy": "n", "ALL_PROXY": "up", "all_proxy": "low"}
    op = run_of(await last("FROM x\nENV HTTP_PROXY=own\nRUN a\n", build_args=args))
    assert op.env == ("PATH=/bin", "HTTP_PROXY=own")
    assert set(op.proxies) == {
        "HTTP_PROXY=p", "http_proxy=p", "NO_PROXY=n", "no_proxy=n", "ALL_PROXY=low", "all_proxy=low",
    }  # fmt: skip


async def test_what_history_says() -> None:
    stage = await last(
        """FROM x
EXPOSE 81 80/udp
HEALTHCHECK --interval=90s --timeout=1500ms --start-period=2h --start-interval=500us CMD a || b
HEALTHCHECK NONE
ONBUILD RUN a
USER www
WORKDIR /w
""".replace("500us", "5ms")
    )
    assert [step.created_by for step in stage.steps] == [
        "EXPOSE [81/tcp 80/udp]",
        'HEALTHCHECK &{["CMD-SHELL" "a || b"] "1m30s" "1.5s" "2h0m0s" "5ms" \'\\x00\'}',
        'HEALTHCHECK &{["NONE"] "0s" "0s" "0s" "0s" \'\\x00\'}',
        "",
        "USER www",
        "WORKDIR /w",
    ]
    assert stage.steps[-1].op == WorkdirOp("/w", "www")


async def test_platform_arguments_must_be_asked_for() -> None:
    stage = await last("FROM --platform=$BUILDPLATFORM x\nRUN a\nARG TARGETARCH TARGETOS=mine\nRUN b\n")
    assert run_of(stage).env == ("PATH=/bin",)
    assert set(run_of(stage, 1).env) == {"PATH=/bin", "TARGETARCH=amd64", "TARGETOS=mine"}


async def test_what_a_base_says_goes_on() -> None:
    stage = await last("FROM tools AS tools\nFROM x\nLABEL b=own\n", base={**BASE, "OnBuild": None})
    assert stage.config["Labels"] == {"a": "base", "b": "own"}
    for key in ("Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes"):
        assert stage.config[key] == BASE[key]
    assert "OnBuild" not in stage.config


async def test_a_new_entrypoint_drops_the_bases_command() -> None:
    assert "Cmd" not in (await last("FROM x\nENTRYPOINT a\n", base={"Cmd": ["b"]})).config
    kept = await last('FROM x\nCMD ["c"]\nENTRYPOINT a\n', base={"Cmd": ["b"]})
    assert kept.config["Cmd"] == ["c"]
    assert kept.config["Entrypoint"] == ["/bin/sh", "-c", "a"]


async def test_triggers_run_first_and_are_not_kept() -> None:
    found = await plan("FROM tools AS tools\nFROM scratch AS none\nFROM x\nARG LATE=l\nRUN own\n", base=BASE)
    stage = found.stages[found.target]
    assert [step.title for step in stage.steps][:2] == ["RUN trigger $LATE", "COPY --from=tools /x /y"]
    assert stage.needs == {0}
    assert sorted(found.stages) == [0, 2]
    assert "OnBuild" not in stage.config


async def test_working_directories_add_up() -> None:
    stage = await last("FROM scratch\nWORKDIR a\nWORKDIR b\nCOPY x y/\nCOPY x .\nWORKDIR /c/../d\nRUN z\n")
    copies = [step.op.target for step in stage.steps if isinstance(step.op, CopyOp)]
    assert copies == ["/a/b/y/", "/a/b/"]
    assert run_of(stage).cwd == "/d"


async def test_nothing_changes_nothing() -> None:
    stage = await last("FROM scratch\nWORKDIR /a\nWORKDIR $none\nUSER www\nUSER $none\nRUN x\n")
    assert run_of(stage).cwd == "/a"
    assert run_of(stage).user == ""
    assert "User" not in stage.config


async def test_a_shell_of_ones_own() -> None:
    stage = await last('FROM x\nSHELL ["/bin/bash", "-ec"]\nRUN a\nCMD b\n')
    assert run_of(stage).args == ("/bin/bash", "-ec", "a")
    assert stage.config["Cmd"] == ["/bin/bash", "-ec", "b"]


async def test_documents_and_scripts() -> None:
    stage = await last(
        "FROM x\nENV v=1\nRUN <<E\na $v\nE\nRUN <<E\n#!/x\nE\nRUN cat <<-A <<B\n\t1\n\tA\n2\nB\nCOPY <<F /f\n$v\nF\n"
    )
    assert run_of(stage).args == ("/bin/sh", "-c", "a $v\n")
    assert run_of(stage, 1).args == ("/dev/pipes/E",)
    assert run_of(stage, 1).files == (("/dev/pipes/E", b"#!/x\n"),)
    assert run_of(stage, 2).args[2] == "cat <<-A <<B\n\t1\nA\n2\nB"
    copy = stage.steps[-1].op
    assert isinstance(copy, CopyOp)
    assert copy.files[0].content == b"1\n"


async def test_names() -> None:
    found = await plan(
        "ARG V=1\nFROM x:$V AS Base\nFROM base AS two\nFROM unused\nFROM two\nCOPY --from=BASE a b\nCOPY --from=1 a b\n"
        "COPY --from=other/image a b\nCOPY --from=more a b\n",
        contexts={"more": "/dir"},
    )
    stage = found.stages[found.target]
    origins = [step.op.origin for step in stage.steps if isinstance(step.op, CopyOp)]
    assert [(each.kind, each.stage) for each in origins] == [
        ("stage", 0),
        ("stage", 1),
        ("image", -1),
        ("named", -1),
    ]
    assert list(found.stages) == [0, 1, 3]
    assert found.stages[0].image == "x:1"
    assert [each["name"] for each in found.as_data()["stages"]] == ["base", "two", "stage-3"]


@pytest.mark.parametrize(
    ("mount", "gives"),
    [
        ("type=$T,target=/c", ("cache", "", "", False)),
        ("TYPE=CACHE,target=/c,sharing=LOCKED", ("cache", "", "", False)),
        ("type=cache,target=/c,rw=false", ("cache", "", "", True)),
        ("type=cache,target=/c,ro,rw", ("cache", "", "", False)),
        ("type=bind,target=/c", ("bind", "", "", True)),
        ("type=bind,target=/c,rw=true", ("bind", "", "", False)),
        ("type=secret,src=key", ("secret", "key", "", True)),
        ("type=secret,source=key,target=/k", ("secret", "key", "", True)),
        ('\'type=bind,"source=a,""b""",target=/c\'', ("bind", "", "/a,b", True)),
    ],
)
async def test_mounts(mount: str, gives: tuple[str, str, str, bool]) -> None:
    (op,) = run_of(await last(f"FROM x\nARG T=cache\nRUN --mount={mount} y\n")).mounts
    assert (op.kind, op.id if op.kind == "secret" else "", op.source, op.read_only) == gives


async def test_ports() -> None:
    stage = await last("FROM x\nARG P=53/udp\nEXPOSE 80 $P 8000-8002 127.0.0.1:90:91\n")
    assert list(stage.config["ExposedPorts"]) == [
        "80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp", "91/tcp",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "FROM a AS b\nCOPY --from=c / /\nFROM a AS c\nRUN --mount=from=b,target=/x y\nFROM c\n",
            "circular dependency",
        ),
        ("FROM a AS b\nCOPY --from=b / /\n", "circular dependency"),
        ("FROM a\nCOPY --from=7 / /\n", "invalid stage index 7"),
        ("ARG X\nFROM $X\n", "should not be blank"),
        ('FROM a\nCOPY "my file" /x\n', "failed to process '\"my': a double quote is not closed"),
        ("FROM a\nCOPY a 'b c'\n", "a single quote is not closed"),
        ('FROM a\nVOLUME "a b"\n', "a double quote is not closed"),
        ("FROM a\nEXPOSE 99999\n", "invalid range"),
        ("FROM a\nEXPOSE x\n", "invalid containerPort: x"),
        ("FROM a\nSTOPSIGNAL FOO\n", "there is no signal 'FOO'"),
        ("FROM a\nSTOPSIGNAL 0\n", "there is no signal '0'"),
        ("FROM a\nENV x=${y\n", "missing '}'"),
        ("FROM a\nENV x=${y:?must}\n", "y: must"),
        ("FROM a\nCOPY a b /c\n", "end with a /"),
        ("FROM a\nADD --checksum=sha256:x local /c\n", "--checksum needs exactly one source"),
        ("FROM a\nSTOPSIGNAL not!\n", "is no signal"),
        ("FROM a\nRUN --mount=type=cache,target=/c,mode=9 x\n", "a value of the mount is wrong"),
        ("FROM a\nARG T=nfs\nRUN --mount=type=$T,target=/c x\n", "unsupported mount type 'nfs'"),
        ("FROM a\nRUN --mount=type=$T x\n", "unsupported mount type ''"),
        ("FROM --platform=a/b/c/d x\n", "platform 'a/b/c/d'"),
    ],
)
async def test_mistakes(text: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        await plan(text)
    assert says in caught.value.message
    assert "\n      | " in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN --device=x y\n",
    ],
)
async def test_what_is_not_there_yet_is_named(text: str) -> None:
    with pytest.raises(Unsupported, match=r"Dockerfile:2: .* not supported"):
        await plan(text)


async def test_words_end_at_spaces_whatever_is_quoted() -> None:
    (step,) = (await last('FROM a\nCOPY "pl"ain my\\ file ${X:-y} \'z\' "/a/"\n')).steps
    assert isinstance(step.op, CopyOp)
    assert (step.op.sources, step.op.target) == (("plain", "my", "file", "y", "z"), "/a/")
    assert (await last('FROM a\nENV F="my file"\nCOPY $F /x\n')).steps[1].op == CopyOp(
        Origin("context"), ("my file",), "/x"
    )


async def test_a_target_that_is_none() -> None:
    with pytest.raises(Invalid, match="target stage 'x' could not be found"):
        await plan("FROM a\n", target="x")


async def test_named_contexts_are_bases() -> None:
    assert (await last("FROM more\n", contexts={"more": "/dir"})).context == "more"
    layout = {"more": "oci-layout:///dir:tag"}
    assert (await last("FROM docker.io/library/more:latest\n", contexts=layout)).image == "oci:/dir:tag"
    both = {"more": "oci-layout:///dir:tag@sha256:abc"}
    assert (await last("FROM more\n", contexts=both)).image == "oci:/dir:@sha256:abc"
    # One of a stage's name stands for the stage; nothing that it says is looked at.
    replaced = await last("FROM nowhere AS Some\nCOPY --from=none a b\n", contexts={"some": "/dir"})
    assert (replaced.context, replaced.steps, replaced.image) == ("some", (), "")
    assert (await last("FROM more\n", contexts={"more": "docker-image://other:2"})).image == "other:2"


async def test_a_stage_is_copied_from_where_it_stands_before() -> None:
    for line, kind in (("COPY --from=late /a /b", "copy"), ("RUN --mount=from=late,target=/m true", "mount")):
        text = f"FROM x AS early\n{line}\nFROM x AS late\nFROM x\nCOPY --from=early / /\nCOPY --from=late / /\n"
        with pytest.raises(
            Invalid, match=f"cannot {kind} from stage 'late': it needs to be defined before stage 'early'"
        ):
            await plan(text)
    with pytest.raises(Invalid, match="cannot copy from stage 'late'"):
        await plan("FROM x AS early\nCOPY --from=1 / /\nFROM x AS late\n", target="early")


async def test_the_stage_that_is_wanted_has_a_name_as_an_argument() -> None:
    text = "FROM x AS a\nRUN before\nARG TARGETSTAGE\nRUN after\nFROM a\nRUN end\n"
    found = await last(text, target="a")
    assert "TARGETSTAGE=a" not in run_of(found).env
    assert "TARGETSTAGE=a" in run_of(found, 1).env
    assert "TARGETSTAGE=default" in run_of(await last(text)).env
    findings = lint(understand(text.encode()), Options(AMD, AMD), b"", lambda _: None)
    assert not [each for each in findings if "TARGETSTAGE" in each.message]
    findings = lint(understand(b"FROM x-$TARGETSTAGE\n"), Options(AMD, AMD), b"", lambda _: None)
    assert not [each for each in findings if "TARGETSTAGE" in each.message]


async def test_an_empty_destination_is_the_working_directory() -> None:
    copy = (await last("FROM x\nWORKDIR /w\nARG empty\nCOPY f $empty\n")).steps[-1].op
    assert isinstance(copy, CopyOp)
    assert copy.target == "/w/"
