"""The subset of Go's templates."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.cli._evaluate import FreeMap, Template
from scow_plugins.cli._functions import Method, go_quote, to_json
from scow_plugins.cli._template import TemplateError

DATA: dict[str, Any] = {
    "ID": "abc",
    "N": 3,
    "F": 1.5,
    "Yes": True,
    "Nothing": None,
    "Empty": [],
    "Labels": FreeMap({"a.b": "1", "c": "2"}),
    "State": {"Running": True, "Pid": 42},
    "List": [{"a": 1}, {"a": 2}],
    "Words": ["x", "y"],
    "Label": Method(lambda name: f"<{name}>"),
    "Up": Method(lambda: "up", needs=False),
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.ID}} {{.N}} {{.F}} {{.Yes}}", "abc 3 1.5 true"),
        ("{{ .State.Pid }}", "42"),
        ("{{.Words}}", "[x y]"),
        ("{{.Labels}}", "map[a.b:1 c:2]"),
        ("{{.Nothing}}", "<no value>"),
        ("{{.Labels.missing}}", "<no value>"),
        ('{{index .Labels "a.b"}}', "1"),
        ('{{index .Labels "missing"}}', ""),
        ("{{index .Words 1}}", "y"),
        ("{{(index .List 1).a}}", "2"),
        ("{{json .State}}", '{"Running":true,"Pid":42}'),
        ("{{json .ID}}", '"abc"'),
        ("{{range .List}}{{.a}},{{end}}", "1,2,"),
        ("{{range $i, $e := .Words}}{{$i}}={{$e}} {{end}}", "0=x 1=y "),
        ("{{range $k, $v := .Labels}}{{$k}}:{{$v}} {{end}}", "a.b:1 c:2 "),
        ("{{range $e := .Words}}{{$e}}{{end}}", "xy"),
        ("{{range .Empty}}x{{else}}none{{end}}", "none"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{range .Words}}{{$.ID}}{{end}}", "abcabc"),
        ("{{if .Yes}}a{{else}}b{{end}}", "a"),
        ("{{if .Nothing}}a{{else if .Empty}}b{{else}}c{{end}}", "c"),
        ("{{if and .Yes (gt .N 2)}}a{{end}}", "a"),
        ("{{if or .Nothing .N}}a{{end}}", "a"),
        ("{{if not .Yes}}a{{else}}b{{end}}", "b"),
        ("{{with .State}}{{.Pid}}{{end}}", "42"),
        ("{{with .Nothing}}a{{else}}b{{end}}", "b"),
        ("{{with $x := .State}}{{$x.Pid}}{{end}}", "42"),
        ("{{$x := 1}}{{range .List}}{{$x = .a}}{{end}}{{$x}}", "2"),
        ("{{$x := 1}}{{if .Yes}}{{$x := 2}}{{end}}{{$x}}", "1"),
        ("a  {{- .ID -}}  b", "aabcb"),
        ("a {{/* nothing */}} b", "a  b"),
        ("a {{- /* nothing */ -}} b", "ab"),
        ("{{.ID | upper}}", "ABC"),
        ('{{printf "%s-%03d|%5s|%-5s|%q|%v|%%" .ID .N .ID .ID .ID .Words}}',
         'abc-003|  abc|abc  |"abc"|[x y]|%'),
        ('{{join .Words "+"}}', "x+y"),
        ('{{split "a,b" ","}}', "[a b]"),
        ("{{truncate .ID 2}}", "ab"),
        ("{{slice .ID 1 2}}", "b"),
        ("{{title .ID}} {{lower `ABC`}}", "Abc abc"),
        ('{{pad .ID 1 2}}|', " abc  |"),
        ("{{len .Words}}", "2"),
        ("{{eq .N 1 2 3}} {{ne .N 3}} {{lt 1 2}} {{le 2 2}} {{ge 1 2}}", "true false true true false"),
        ('{{println .ID 1}}', "abc 1\n"),
        ("{{print 1 2}}", "1 2"),
        (r'{{"a\"}}\n"}}', 'a"}}\n'),
        ("{{`}}`}}", "}}"),
        ("{{'a'}} {{0x10}} {{-3}} {{true}}", "97 16 -3 true"),
        ('{{.Label "x"}}', "<x>"),
        ('{{.Label "x" | upper}}', "<X>"),
        ("{{.Up}}", "up"),
        ("{{range 2}}{{.}}{{end}}", "01"),
    ],
)  # fmt: skip
def test_templates(template: str, text: str) -> None:
    assert Template(template).render(DATA) == text


@pytest.mark.parametrize(
    "template",
    [
        "{{", "{{.ID", "{{if .ID}}", "{{range .ID}}", "{{end}}", "{{else}}", "{{}}", "{{foo}}", "{{.Missing}}",
        "{{.ID.x}}",
        "{{.Nothing.x}}", "{{index .Words 5}}", "{{index .Words -1}}", '{{index .Words "x"}}', "{{.ID 1}}",
        "{{$x}}", "{{$x = 1}}",
        "{{(.ID}}", "{{.ID)}}", "{{if .Yes}}{{else}}{{else}}{{end}}", "{{lt 1 `a`}}", "{{len 5}}",
        "{{range .F}}{{end}}",
        "{{.ID |}}",
        "{{upper}}", "{{split}}", r'{{"\q"}}', "{{eq 1}}", "{{@}}", "{{slice .ID 2 1}}", "{{.__class__}}",
        "{{.ID.__class__}}",
        "{{truncate .ID `x`}}",
    ],
)  # fmt: skip
def test_errors(template: str) -> None:
    with pytest.raises(TemplateError):
        Template(template).render(DATA)


def test_a_missing_field_names_those_that_are_there() -> None:
    with pytest.raises(TemplateError, match=r"there is no field 'Foo'; there are Running, Pid"):
        Template("{{.State.Foo}}").render(DATA)


def test_depth_is_bounded() -> None:
    for template in ("{{if .Yes}}" * 5000, "{{" + "(" * 5000 + ".ID" + ")" * 5000 + "}}"):
        with pytest.raises(TemplateError, match="deeper"):
            Template(template)


WORDS = ["{{", "}}", "{{if .Yes}}", "{{range .List}}", "{{end}}", "{{else}}", "{{- ", " -}}", ".ID", "$x", ":=", "|",
         "(", ")",          "index", '"a"', "`", "json .", "printf", "%d", "0", ",", " ", "\\", "'"]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=4), max_size=12).map("".join))
def test_anything_renders_or_is_a_template_error(template: str) -> None:
    with suppress(TemplateError):
        Template(template).render(DATA)


@given(st.text())
def test_text_without_braces_stays(text: str) -> None:
    if "{{" not in text:
        assert Template(text).render(None) == text


@given(st.text())
def test_json_strings_render_as_they_are(text: str) -> None:
    import json

    assert Template("{{" + json.dumps(text) + "}}").render(None) == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("a b", '"a b"'), ('a"\\', r'"a\"\\"'), ("\n\x1b\x00é", '"\\n\\x1b\\x00é"'), ("\u200b", '"\\u200b"')],
)
def test_go_quote(text: str, quoted: str) -> None:
    assert go_quote(text) == quoted


def test_json_leaves_html_alone_and_methods_out() -> None:
    assert to_json({"a": "<&>é", "b": Method(str), "c": (1, None)}) == '{"a":"<&>é","c":[1,null]}'
