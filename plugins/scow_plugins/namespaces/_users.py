"""Users and groups out of an image's own files, parsed by hand: NSS would load the container's libraries. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from scow.api import Invalid, NotFound

__all__ = ["Identity", "look_up"]

_LARGEST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process runs as. `home` is empty when the image doesn't say."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str
    name: str


def look_up(user: str, extra_groups: Sequence[str], passwd: bytes, group: bytes) -> Identity:
    """Docker's `user[:group]`, names or numbers, by the contents of /etc/passwd and /etc/group.

    A number needn't stand in the files; a name must. Supplementary groups are those of the user's name, or none when
    a group was given, `extra_groups`, and always its first group, as login(1) has it: else a process could drop that
    and reach files which deny it to the group (CVE-2022-36109). Raises NotFound, Invalid.
    """
    who, colon, which = user.partition(":")
    entry = _user(who or "0", passwd)
    uid, gid, home, name = entry
    if colon and which:
        gid = _group(which, group)
        groups: set[int] = set()
    else:
        groups = {number for number, members in _groups(group) if name and name in members}
    groups |= {gid, *(_group(extra, group) for extra in extra_groups)}
    return Identity(uid, gid, tuple(sorted(groups)), home, name)


def _user(who: str, passwd: bytes) -> tuple[int, int, str, str]:
    """uid, gid, home, name."""
    number = _number(who)
    for fields in _lines(passwd, 4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is None or gid is None:
            continue
        if fields[0] == who or (number is not None and uid == number):
            return uid, gid, fields[5] if len(fields) > 5 else "", fields[0]
    if number is None:
        raise NotFound(
            f"unable to find user {who}: no matching entries in passwd file", hint="a number works without an entry"
        )
    return _checked(number, who), 0, "/root" if number == 0 else "", "root" if number == 0 else ""


def _group(which: str, group: bytes) -> int:
    number = _number(which)
    for fields in _lines(group, 3):
        gid = _number(fields[2])
        if gid is not None and fields[0] == which:
            return gid
    if number is None:
        raise NotFound(
            f"unable to find group {which}: no matching entries in group file", hint="a number works without an entry"
        )
    return _checked(number, which)


def _groups(group: bytes) -> Iterator[tuple[int, frozenset[str]]]:
    for fields in _lines(group, 4):
        gid = _number(fields[2])
        if gid is not None:
            yield gid, frozenset(fields[3].split(","))


def _lines(content: bytes, least: int) -> Iterator[list[str]]:
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= least and fields[0]:
            yield fields


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32 - 1 else None


def _checked(number: int, text: str) -> int:
    if number > _LARGEST:
        raise Invalid(f"user or group {text!r} is out of range", hint=f"numbers go from 0 to {_LARGEST}")
    return number
