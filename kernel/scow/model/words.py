"""Words that become part of a line in a container's /etc/hosts or /etc/resolv.conf (hosts(5), resolv.conf(5))."""

from __future__ import annotations

from collections.abc import Iterable

from scow.errors import Invalid


def check_words(what: str, words: Iterable[str]) -> None:
    """Raises Invalid for a word with a newline or another control character: it would make lines of its own."""
    for word in words:
        if not word.isprintable():
            raise Invalid(f"{what} {word!r} has a control character in it")
