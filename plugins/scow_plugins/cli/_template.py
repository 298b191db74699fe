"""The part of Go's text/template that people use with --format, read into a small tree.

    {{.Name}}  {{json .}}  {{index .Labels "a"}}  {{range $k, $v := .X}}…{{else}}…{{end}}  {{if}} {{with}} {{- trims -}}

Pure: text to tree. `_evaluate.py` walks the tree over plain data (dict, list, str, numbers, None); no attribute of any
Python object is ever looked up, so that a template can reach nothing but what it is given.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

_TOKEN: Final = re.compile(
    r"""\s+
    |(?P<string>"(?:[^"\\\n]|\\.)*")
    |(?P<raw>`[^`]*`)
    |(?P<char>'(?:[^'\\\n]|\\.)')
    |(?P<number>[+-]?(?:0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?))
    |(?P<field>(?:\.[^\W\d]\w*)+)
    |(?P<var>\$\w*)
    |(?P<name>[^\W\d]\w*)
    |(?P<mark>:=|[().|,=])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.DOTALL)
_KEYWORDS: Final = frozenset({"if", "else", "end", "range", "with"})
_DEPTH: Final = 50


class TemplateError(ValueError):
    """The template is wrong, or asks for what isn't there."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A value: a literal, `.`, a variable, a function's name, or a pipeline in brackets; and fields to follow."""

    kind: str
    value: Any = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pipe:
    """Commands joined by `|`; each is a function or value with its arguments. `names` are variables that it sets."""

    commands: tuple[tuple[Operand, ...], ...]
    names: tuple[str, ...] = ()
    declares: bool = True


@dataclass(slots=True)
class Node:
    """A piece of a template: `text`, `action`, `if`, `range` or `with`."""

    kind: str
    text: str = ""
    pipe: Pipe | None = None
    body: list[Node] = field(default_factory=list)
    other: list[Node] = field(default_factory=list)


def parse_template(text: str) -> list[Node]:
    """Read a template. Raises TemplateError."""
    reader = _Reader(_pieces(text))
    nodes, ending = reader.block(0)
    if ending is not None:
        raise TemplateError(f"unexpected {{{{{ending[0]}}}}}")
    return nodes


def _pieces(text: str) -> list[tuple[str, str]]:
    """Cut into ('text', …) and ('action', …); trim markers and comments are dealt with here."""
    pieces: list[tuple[str, str]] = []
    position, trim = 0, False
    while True:
        start = text.find("{{", position)
        plain = text[position:] if start < 0 else text[position:start]
        if trim:
            plain = plain.lstrip()
        if start < 0:
            return [*pieces, ("text", plain)]
        start += 2
        if text.startswith("-", start) and text[start + 1 : start + 2].isspace():
            plain, start = plain.rstrip(), start + 1
        end = _action_end(text, start)
        inner = text[start:end]
        trim = len(inner) > 1 and inner.endswith("-") and inner[-2].isspace()
        inner = inner[:-1] if trim else inner
        pieces.append(("text", plain))
        if not (inner.strip().startswith("/*") and inner.strip().endswith("*/")):
            pieces.append(("action", inner))
        position = end + 2


def _action_end(text: str, start: int) -> int:
    """Where `}}` is, not counting those inside strings."""
    for match in re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|/\*.*?\*/|\}\}', re.DOTALL).finditer(text, start):
        if match[0] == "}}":
            return match.start()
    raise TemplateError("{{ is never closed")


def _tokens(text: str) -> list[tuple[str, Any]]:
    tokens: list[tuple[str, Any]] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise TemplateError(f"unexpected {text[position:][:20]!r}")
        position = match.end()
        if match.lastgroup is not None:
            tokens.append(_token(match.lastgroup, match[0]))
    return tokens


def _token(kind: str, text: str) -> tuple[str, Any]:
    if kind == "string":
        return "literal", unquote(text)
    if kind == "raw":
        return "literal", text[1:-1]
    if kind == "char":
        return "literal", ord(unquote(text))
    if kind == "number":
        return "literal", float(text) if "." in text else int(text, 16 if "x" in text.lower() else 10)
    if kind == "name" and text in ("true", "false", "nil"):
        return "literal", {"true": True, "false": False, "nil": None}[text]
    return kind, text


def unquote(text: str) -> str:
    """A Go string literal's value: JSON's escapes, and \\xNN, \\NNN, \\a, \\v and quotes."""
    plain = {
        "a": "\a",
        "b": "\b",
        "f": "\f",
        "n": "\n",
        "r": "\r",
        "t": "\t",
        "v": "\v",
        "\\": "\\",
        "'": "'",
        '"': '"',
    }

    def one(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 3:
            return chr(int(code[1:], 16) if code[0] == "x" else int(code, 8))
        if code not in plain:
            raise TemplateError(f"unknown escape \\{code}")
        return plain[code]

    try:
        return str(json.loads(text)) if text[0] == '"' else _ESCAPE.sub(one, text[1:-1])
    except ValueError:
        return _ESCAPE.sub(one, text[1:-1])


class _Reader:
    def __init__(self, pieces: list[tuple[str, str]]) -> None:
        self.pieces = pieces
        self.at = 0

    def block(self, depth: int) -> tuple[list[Node], tuple[str, list[tuple[str, Any]]] | None]:
        """Nodes up to an `end` or `else` (which is given back with its tokens) or the end of the text."""
        if depth > _DEPTH:
            raise TemplateError(f"nested deeper than {_DEPTH} levels")
        nodes: list[Node] = []
        while self.at < len(self.pieces):
            kind, text = self.pieces[self.at]
            self.at += 1
            if kind == "text":
                nodes.append(Node("text", text))
                continue
            tokens = _tokens(text)
            word = tokens[0][1] if tokens and tokens[0][0] == "name" else ""
            if word in ("end", "else"):
                return nodes, (word, tokens[1:])
            if word in _KEYWORDS:
                nodes.append(self._control(word, tokens[1:], depth))
            else:
                nodes.append(Node("action", pipe=_PipeReader(tokens).whole()))
        return nodes, None

    def _control(self, word: str, tokens: list[tuple[str, Any]], depth: int) -> Node:
        node = Node(word, pipe=_PipeReader(tokens).whole(ranging=word == "range"))
        node.body, ending = self.block(depth + 1)
        if ending is not None and ending[0] == "else":
            rest = ending[1]
            if rest and rest[0] == ("name", word) and word != "range":
                node.other = [self._control(word, rest[1:], depth + 1)]
                return node
            if rest:
                raise TemplateError(f"unexpected words after else: {rest[0][1]!r}")
            node.other, ending = self.block(depth + 1)
        if ending is None or ending[0] != "end":
            raise TemplateError(f"{{{{{word}}}}} has no {{{{end}}}}")
        return node


class _PipeReader:
    def __init__(self, tokens: list[tuple[str, Any]]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def whole(self, *, ranging: bool = False) -> Pipe:
        names, declares = self._declaration(ranging)
        pipe = self._pipe()
        if self.at != len(self.tokens):
            raise TemplateError(f"unexpected {self.tokens[self.at][1]!r}")
        return Pipe(pipe.commands, names, declares)

    def _peek(self, ahead: int = 0) -> tuple[str, Any]:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else ("", None)

    def _declaration(self, ranging: bool) -> tuple[tuple[str, ...], bool]:
        if self._peek()[0] != "var":
            return (), True
        first = self._peek()[1]
        if self._peek(1) in (("mark", ":="), ("mark", "=")):
            declares = self._peek(1)[1] == ":="
            self.at += 2
            return (first,), declares
        if ranging and self._peek(1) == ("mark", ",") and self._peek(2)[0] == "var":
            second = self._peek(2)[1]
            if self._peek(3) == ("mark", ":="):
                self.at += 4
                return (first, second), True
        return (), True

    def _pipe(self) -> Pipe:
        commands = [self._command()]
        while self._peek() == ("mark", "|"):
            self.at += 1
            commands.append(self._command())
        return Pipe(tuple(commands))

    def _command(self) -> tuple[Operand, ...]:
        operands: list[Operand] = []
        while (operand := self._operand()) is not None:
            operands.append(operand)
        if not operands:
            raise TemplateError("a value is missing")
        return tuple(operands)

    def _operand(self) -> Operand | None:
        kind, value = self._peek()
        if kind in ("literal", "name"):
            self.at += 1
            return Operand(kind, value)
        if kind == "field":
            self.at += 1
            return Operand("dot", path=_path(value))
        if (kind, value) == ("mark", "."):
            self.at += 1
            return Operand("dot")
        if kind == "var":
            self.at += 1
            return Operand("var", value, self._follow())
        if (kind, value) == ("mark", "("):
            return self._brackets()
        return None

    def _brackets(self) -> Operand:
        self.at += 1
        self.depth += 1
        if self.depth > _DEPTH:
            raise TemplateError(f"nested deeper than {_DEPTH} levels")
        inner = self._pipe()
        self.depth -= 1
        if self._peek() != ("mark", ")"):
            raise TemplateError("( is never closed")
        self.at += 1
        return Operand("pipe", inner, self._follow())

    def _follow(self) -> tuple[str, ...]:
        kind, value = self._peek()
        if kind != "field":
            return ()
        self.at += 1
        return _path(value)


def _path(text: str) -> tuple[str, ...]:
    return tuple(text[1:].split("."))
