"""Walks a template's tree over plain data, and prints values as Go does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from scow_plugins.cli._functions import FUNCTIONS, Method, go_text, truth
from scow_plugins.cli._template import Node, Operand, Pipe, TemplateError, parse_template

_MISSING: Final = "<no value>"


class FreeMap(dict[str, Any]):
    """A map whose keys are the user's (labels, ports): a missing one is no mistake."""


class Template:
    """A parsed template, used for many rows. Raises TemplateError, as does `render`."""

    def __init__(self, text: str) -> None:
        self._nodes = parse_template(text)

    def render(self, data: Any, functions: Mapping[str, Callable[..., Any]] = FUNCTIONS) -> str:
        """The template's text for `data`."""
        out: list[str] = []
        _Walker(data, functions, out).nodes(self._nodes, data, {"$": data})
        return "".join(out)


def header_functions() -> Mapping[str, Callable[..., Any]]:
    """Functions under which a template of fields gives the fields' titles (`table {{upper .ID}}`)."""
    same = {name: lambda *args: args[-1] if args else "" for name in ("json", "upper", "lower", "title", "truncate")}
    first = {name: lambda *args: args[0] if args else "" for name in ("split", "join", "println")}
    return {**FUNCTIONS, **same, **first}


Scope = dict[str, Any]


class _Walker:
    def __init__(self, root: Any, functions: Mapping[str, Callable[..., Any]], out: list[str]) -> None:
        self.root = root
        self.functions = functions
        self.out = out

    def nodes(self, nodes: list[Node], dot: Any, scope: Scope) -> None:
        for node in nodes:
            if node.kind == "text":
                self.out.append(node.text)
            elif node.pipe is not None:
                getattr(self, f"_{node.kind}")(node, node.pipe, dot, scope)

    def _action(self, node: Node, pipe: Pipe, dot: Any, scope: Scope) -> None:
        value = self._pipe(pipe, dot, scope)
        if not pipe.names:
            self.out.append(_MISSING if value is None else go_text(value))
            return
        name = pipe.names[0]
        if not pipe.declares and name not in scope:
            raise TemplateError(f"undefined variable {name}")
        if pipe.declares and isinstance(scope, _Nested):
            scope.declare(name, value)
        else:
            scope[name] = value

    def _if(self, node: Node, pipe: Pipe, dot: Any, scope: Scope) -> None:
        inner = _Nested(scope)
        value = self._bound(pipe, dot, inner)
        self.nodes(node.body if truth(value) else node.other, dot, inner)

    def _with(self, node: Node, pipe: Pipe, dot: Any, scope: Scope) -> None:
        inner = _Nested(scope)
        value = self._bound(pipe, dot, inner)
        self.nodes(node.body, value, inner) if truth(value) else self.nodes(node.other, dot, inner)

    def _range(self, node: Node, pipe: Pipe, dot: Any, scope: Scope) -> None:
        items = _items(self._pipe(pipe, dot, scope))
        if not items:
            self.nodes(node.other, dot, _Nested(scope))
        for key, value in items:
            inner = _Nested(scope)
            if len(pipe.names) == 2:
                inner.declare(pipe.names[0], key)
            if pipe.names:
                inner.declare(pipe.names[-1], value)
            self.nodes(node.body, value, inner)

    def _bound(self, pipe: Pipe, dot: Any, scope: _Nested) -> Any:
        value = self._pipe(pipe, dot, scope)
        if pipe.names:
            scope.declare(pipe.names[0], value)
        return value

    def _pipe(self, pipe: Pipe, dot: Any, scope: Scope) -> Any:
        value: Any = None
        for number, command in enumerate(pipe.commands):
            extra = [value] if number else []
            value = self._command(command, extra, dot, scope)
        return value

    def _command(self, command: tuple[Operand, ...], extra: list[Any], dot: Any, scope: Scope) -> Any:
        head, *rest = command
        if head.kind == "name":
            return self._call(head.value, rest, extra, dot, scope)
        value = self._operand(head, dot, scope, call=not (rest or extra))
        if isinstance(value, Method):
            return value.call(*[self._operand(each, dot, scope) for each in rest], *extra)
        if rest or extra:
            raise TemplateError("a value that is no function was given arguments")
        return value

    def _call(self, name: str, rest: list[Operand], extra: list[Any], dot: Any, scope: Scope) -> Any:
        if name in ("and", "or"):
            return self._logic(name == "or", rest, extra, dot, scope)
        function = self.functions.get(name)
        if function is None:
            raise TemplateError(f"function {name!r} is not defined")
        args = [self._operand(each, dot, scope) for each in rest] + extra
        try:
            return function(*args)
        except TemplateError:
            raise
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise TemplateError(f"{name}: {error}") from None

    def _logic(self, stop: bool, rest: list[Operand], extra: list[Any], dot: Any, scope: Scope) -> Any:
        value: Any = None
        for each in rest:
            value = self._operand(each, dot, scope)
            if truth(value) == stop:
                return value
        return extra[0] if extra else value

    def _operand(self, operand: Operand, dot: Any, scope: Scope, *, call: bool = True) -> Any:
        value: Any
        if operand.kind == "literal":
            return operand.value
        if operand.kind == "dot":
            value = dot
        elif operand.kind == "var":
            if operand.value not in scope:
                raise TemplateError(f"undefined variable {operand.value}")
            value = scope[operand.value]
        elif operand.kind == "pipe":
            value = self._pipe(operand.value, dot, scope)
        else:
            value = self._call(operand.value, [], [], dot, scope)
        for name in operand.path:
            value = _field(value, name)
        return value.call() if call and isinstance(value, Method) and not value.needs else value


class _Nested(dict[str, Any]):
    """Variables of a block: what it declares ends with it, what it sets of outer ones stays."""

    def __init__(self, outer: Scope) -> None:
        super().__init__(outer)
        self._outer = outer
        self._own: set[str] = set()

    def declare(self, name: str, value: Any) -> None:
        self._own.add(name)
        super().__setitem__(name, value)

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self._outer and name not in self._own:
            self._outer[name] = value
        super().__setitem__(name, value)


def _field(value: Any, name: str) -> Any:
    if value is None:
        raise TemplateError(f"no {name!r} in an empty value")
    if not isinstance(value, Mapping):
        raise TemplateError(f"no {name!r} in a value that has no fields")
    if name in value:
        return value[name]
    if isinstance(value, FreeMap):
        return None
    raise TemplateError(f"there is no field {name!r}; there are {', '.join(value)}")


def _items(value: Any) -> list[tuple[Any, Any]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(min(value, 100_000))]
    raise TemplateError(f"range can't go over {go_text(value)!r}")
