"""The flags of `scow build` that hold several values."""

from __future__ import annotations

import pytest

from scow.engine.builders import BuildOutput
from scow_plugins.cli._buildflags import check_attestations, fields, manifest_annotations, outputs
from scow_plugins.cli._flags import Args, UsageError, parse
from scow_plugins.cli.commands.build import COMMAND


def args(*words: str) -> Args:
    return parse(COMMAND, [*words, "."])


def test_outputs() -> None:
    assert outputs(args(), "OUT") == ()
    assert outputs(args("-o", "dir"), "OUT") == (BuildOutput("local", "dir"),)
    assert outputs(args("-o", "-"), "OUT") == (BuildOutput("tar", "OUT"),)
    assert outputs(args("-o", "type=docker"), "OUT") == (BuildOutput("docker"),)
    assert outputs(args("-o", "type=docker,dest=-"), "OUT") == (BuildOutput("docker", "OUT"),)
    assert outputs(args("--output=type=oci,dest=x,tar=false"), "OUT") == (BuildOutput("oci", "x", directory=True),)
    assert outputs(args("-o", "type=registry,name=a"), "OUT") == (BuildOutput("image", names=("a",), push=True),)
    assert outputs(args("-o", "type=cacheonly"), "OUT") == (BuildOutput("none"),)
    assert outputs(args("-o", 'type=image,"name=a,b",annotation.Some.Key=v'), "OUT") == (
        BuildOutput("image", names=("a", "b"), annotations={"Some.Key": "v"}),
    )


def test_push_and_load_beside_outputs() -> None:
    assert outputs(args("--push"), "") == (BuildOutput("image", push=True),)
    assert outputs(args("--push", "-o", "type=image,name=a"), "") == (BuildOutput("image", names=("a",), push=True),)
    assert outputs(args("--push", "--load"), "") == (BuildOutput("image", push=True),)
    assert outputs(args("--load", "-o", "d"), "") == (BuildOutput("local", "d"), BuildOutput("image"))


@pytest.mark.parametrize(
    "text",
    ["type=x", "type=", "dest=x", "type=tar", "type=oci,dest", "type=image,what=x", "type=image,annotation-index.a=b"],
)
def test_outputs_that_are_none(text: str) -> None:
    with pytest.raises(UsageError):
        outputs(args("-o", text), "OUT")


def test_only_one_to_standard_output() -> None:
    with pytest.raises(UsageError, match="only one"):
        outputs(args("-o", "-", "-o", "type=oci,dest=-"), "OUT")


def test_annotations() -> None:
    words = ("--annotation", "a=b", "--annotation", "manifest:c=d:e", "--annotation", "url:x=y=z")
    assert manifest_annotations(args(*words)) == {"a": "b", "c": "d:e", "url:x": "y=z"}
    assert manifest_annotations(args("--annotation", "manifest[linux/amd64]:a=b")) == {"a": "b"}
    for text in ("a", "=b", "index:a=b", "manifest,index:a=b", "manifest-descriptor:a=b"):
        with pytest.raises(UsageError):
            manifest_annotations(args("--annotation", text))


def test_attestations_are_there_only_to_be_refused() -> None:
    check_attestations(args("--provenance=false", "--sbom=false", "--attest=type=sbom,disabled=true"))
    for text in ("--provenance=true", "--provenance=mode=max", "--sbom=true", "--attest=type=sbom"):
        with pytest.raises(UsageError, match="not supported"):
            check_attestations(args(text))


def test_fields() -> None:
    assert fields("--x", 'type=a,"b=c,d"') == {"type": "a", "b": "c,d"}
    with pytest.raises(UsageError, match="write key=value"):
        fields("--x", "type")
