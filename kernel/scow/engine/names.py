"""Identifiers and names for containers that the user didn't name."""

from __future__ import annotations

import re
import secrets
from typing import Final

from scow.errors import Invalid

_ADJECTIVES: Final = """
able amber ample brave breezy bright brisk calm candid clear clever cosy crisp daring deft eager early even fair fleet
fond frank gentle glad golden hardy humble jolly keen kind lively loyal lucid mellow merry mild neat nimble open patient
plain plucky polite proud quick quiet ready rosy silver sleek smart snug sober solid spry steady sunny sure swift tidy
trusty upright vivid warm wise witty
"""
_BOATS: Final = """
ark barge bark brig caique canoe caravel catboat clipper cog coracle corvette cutter dhow dinghy dory drifter felucca
ferry frigate galleon galley gig gondola hoy hulk junk kayak keelboat ketch knarr launch lighter longboat lugger nao
packet pinnace pirogue polacca pram proa punt raft sampan schooner shallop skiff sloop smack tartane tender trawler
trireme tug umiak whaler wherry xebec yawl
"""
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def new_id() -> str:
    """64 hex digits; the first 12 are never all decimal, so that they can serve as a host name."""
    while True:
        fresh = secrets.token_hex(32)
        if not fresh[:12].isdigit():
            return fresh


def new_name() -> str:
    """Two words and a number that is short but makes clashes rare."""
    return f"{secrets.choice(_ADJECTIVES.split())}_{secrets.choice(_BOATS.split())}{secrets.randbelow(1000)}"


def check_name(name: str) -> str:
    """A user's name for a container, without Docker's leading slash. Raises Invalid."""
    name = name.removeprefix("/")
    if not _NAME.fullmatch(name):
        raise Invalid(
            f"container name {name!r} is not valid",
            hint="a name has two or more of the characters a-z A-Z 0-9 _ . - and begins with a letter or digit",
        )
    return name
