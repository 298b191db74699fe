"""Sizes and times as docker prints and reads them. Pure functions; times are seconds since the epoch."""

from __future__ import annotations

import re
import time
from typing import Final

from scow_plugins.cli._values import duration

_DECIMAL: Final = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
#: Upper bound in seconds, seconds a unit, name (go-units HumanDuration).
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_ZERO: Final = "0001-01-01T00:00:00Z"
_STAMP: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d)(?::(\d\d)(?::(\d\d)(\.\d{1,9})?)?)?(Z|[+-]\d\d:\d\d)?)?(?:Z)?",
    re.ASCII,
)


def human_size(count: float, digits: int = 4) -> str:
    """`12.3MB`: powers of 1000 and `digits` significant digits (go-units HumanSizeWithPrecision)."""
    unit = 0
    while count >= 1000 and unit < len(_DECIMAL) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.{digits}g}{_DECIMAL[unit]}"


def binary_size(count: float) -> str:
    """`7.766GiB`: powers of 1024 and four significant digits (go-units BytesSize)."""
    unit = 0
    while count >= 1024 and unit < len(_BINARY) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.4g}{_BINARY[unit]}"


def human_duration(seconds: float) -> str:
    """`3 minutes`, `About an hour`, `2 weeks` (go-units HumanDuration)."""
    seconds = max(seconds, 0)
    hours = int(seconds / _HOUR + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < _MINUTE:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    if seconds < _HOUR:
        minutes = int(seconds // _MINUTE)
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    for days, each, name in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if hours < 24 * days:
            return f"{hours // 24 // each} {name}"
    return f"{int(seconds // _DAY // 365)} years"


def ago(moment: float, now: float) -> str:
    """`2 minutes ago`; `N/A` where the moment isn't known."""
    return f"{human_duration(now - moment)} ago" if moment > 0 else "N/A"


def stamp(moment: float) -> str:
    """RFC 3339 in UTC with nine digits after the point; Go's zero time for 0."""
    if moment <= 0:
        return _ZERO
    whole = int(moment)
    nanos = min(round((moment - whole) * 1e9), 999_999_999)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{nanos:09d}Z"


def local_stamp(moment: float) -> str:
    """As `events` and `ps`'s CreatedAt write it: `2006-01-02T15:04:05.000000000+02:00`."""
    whole = int(moment)
    nanos = min(round((moment - whole) * 1e9), 999_999_999)
    zone = time.strftime("%z", time.localtime(whole))
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(whole)) + f".{nanos:09d}{zone[:3]}:{zone[3:]}"


def created_at(moment: float) -> str:
    """`2006-01-02 15:04:05 +0200 CEST`, as docker's CreatedAt."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(moment))


def read_moment(text: str, now: float) -> float:
    """--since and --until: seconds since the epoch, RFC 3339 with or without parts, or a duration before now.

    A date without a zone is local, as docker takes it. Raises ValueError.
    """
    if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?", text):
        return float(text)
    match = _STAMP.fullmatch(text)
    if match is None:
        return now - duration(text)
    return _moment(match)


def _moment(match: re.Match[str]) -> float:
    import datetime

    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    zone = match[8]
    moment = datetime.datetime(year, month, day, hour, minute, second)
    if zone == "Z" or match[0].endswith("Z"):
        moment = moment.replace(tzinfo=datetime.UTC)
    elif zone:
        offset = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
        moment = moment.replace(tzinfo=datetime.timezone(-offset if zone[0] == "-" else offset))
    return moment.timestamp() + float(match[7] or 0)


def ellipsis(text: str, width: int) -> str:
    """At most `width` characters, the last one … where some are missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def printable(text: str) -> str:
    """Without what would move the cursor of a terminal: names and messages come from strangers."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
