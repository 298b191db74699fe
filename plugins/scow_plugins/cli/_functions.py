"""The functions that templates may call: Go's own, and those that docker adds. Plain data in and out."""

from __future__ import annotations

import json as _json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from scow_plugins.cli._template import TemplateError

_VERB: Final = re.compile(r"%(?P<flags>[-+# 0]*)(?P<width>\d{0,3})(?:\.(?P<precision>\d{0,3}))?(?P<verb>.)", re.DOTALL)


class Method:
    """A field that is computed, maybe from an argument: `{{.Label "com.example"}}`."""

    def __init__(self, call: Callable[..., Any], *, needs: bool = True) -> None:
        self.call = call
        self.needs = needs


def truth(value: Any) -> bool:
    """What `if` goes by: empty things and zero are false."""
    return bool(value)


def go_text(value: Any) -> str:
    """A value as `{{.}}` prints it (Go's %v)."""
    if value is None:
        return "<nil>"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, float):
        # As short as exact, and without an exponent below 1e21.
        return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{go_text(key)}:{go_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(go_text(each) for each in value) + "]"
    return "" if isinstance(value, Method) else str(value)


def go_quote(text: str) -> str:
    """Go's strconv.Quote: double quotes, and escapes for all that can't be printed."""
    known = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    out: list[str] = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char in known:
            out.append(known[char])
        elif char.isprintable():
            out.append(char)
        else:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON without spaces and without escaping <, > and &, as docker writes it; methods are left out."""
    separators = (",", ":") if indent is None else (",", ": ")
    return _json.dumps(_plain(value), ensure_ascii=False, separators=separators, indent=indent)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items() if not isinstance(each, Method)}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None:
            raise TemplateError(f"index {key!r} of an empty value")
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(value):
            value = value[key]
        else:
            raise TemplateError(f"index {key!r} is out of range")
    return value


def _slice(value: Any, *bounds: int) -> Any:
    if not all(0 <= bound <= len(value) for bound in bounds) or list(bounds) != sorted(bounds) or len(bounds) > 2:
        raise TemplateError("slice: the bounds are out of range")
    return value[slice(*bounds)] if len(bounds) == 2 else value[bounds[0] if bounds else 0 :]


def _truncate(text: Any, length: Any) -> str:
    return go_text(text)[: max(int(length), 0)]


def _pad(text: Any, before: int, after: int) -> str:
    text = go_text(text)
    return " " * min(before, 1000) + text + " " * min(after, 1000) if text else ""


def _join(values: Any, separator: str) -> str:
    return str(separator).join(go_text(each) for each in values or ())


def _println(*values: Any) -> str:
    return " ".join(go_text(each) for each in values) + "\n"


def _print(*values: Any) -> str:
    out = ""
    for number, value in enumerate(values):
        both = number and not isinstance(value, str) and not isinstance(values[number - 1], str)
        out += (" " if both else "") + go_text(value)
    return out


def _printf(form: str, *values: Any) -> str:
    left = list(values)

    def one(match: re.Match[str]) -> str:
        if match["verb"] == "%":
            return "%"
        if not left:
            return f"%!{match['verb']}(MISSING)"
        return _verb(match, left.pop(0))

    text = _VERB.sub(one, form)
    return text + ("%!(EXTRA " + ", ".join(go_text(each) for each in left) + ")" if left else "")


def _verb(match: re.Match[str], value: Any) -> str:
    verb, flags, width = match["verb"], match["flags"], match["width"]
    precision = match["precision"]
    if (verb in "dxXob" and isinstance(value, int)) or (verb in "feg" and isinstance(value, (int, float))):
        dot = f".{precision or 0}" if precision is not None and verb in "feg" else ""
        sign = "+" if "+" in flags else ""
        zero = "0" if "0" in flags and "-" not in flags else ""
        align = "<" if "-" in flags else "" if zero else ">"
        return format(value, f"{align}{sign}{zero}{width}{dot}{verb}")
    if verb == "q":
        text = go_quote(go_text(value))
    elif verb in "vst":
        text = go_text(value)
    elif verb == "x" and isinstance(value, str):
        text = value.encode(errors="surrogateescape").hex()
    else:
        text = f"%!{verb}({go_text(value)})"
    if precision:
        text = text[: int(precision)]
    return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))


def _same(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("eq needs two values")
    return any(type(first) is type(other) and first == other for other in others)


def _length(value: Any) -> int:
    if value is None:
        raise TemplateError("len of an empty value")
    return len(value)


FUNCTIONS: Final[Mapping[str, Callable[..., Any]]] = {
    "eq": _same,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "index": _index,
    "join": _join,
    "json": to_json,
    "le": lambda a, b: a <= b,
    "len": _length,
    "lower": lambda text: go_text(text).lower(),
    "lt": lambda a, b: a < b,
    "ne": lambda a, b: not _same(a, b),
    "not": lambda value: not truth(value),
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "slice": _slice,
    "split": lambda text, separator: go_text(text).split(separator) if separator else list(go_text(text)),
    "title": lambda text: re.sub(r"\b\w", lambda match: match[0].upper(), go_text(text)),
    "truncate": _truncate,
    "upper": lambda text: go_text(text).upper(),
}
