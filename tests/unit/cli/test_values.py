"""Numbers, sizes, durations and times, as docker reads and prints them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow_plugins.cli import _units as units
from scow_plugins.cli import _values as values

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("512", 512), ("64k", 65536), ("64K", 65536), ("1.5g", 1536 << 20), ("20MiB", 20 << 20),
     ("20mb", 20 << 20),
     ("3b", 3), ("1 t", 1 << 40)],
)  # fmt: skip
def test_sizes(text: str, count: int) -> None:
    assert values.size(text) == count


@pytest.mark.parametrize("text", ["", "x", "12x", "-1", "1e3", "0x10", "9" * 40, "1..5", "inf", "nan", "١"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        values.size(text)


def test_swap() -> None:
    assert values.swap("-1") == -1
    assert values.swap("1k") == 1024


@pytest.mark.parametrize("text", ["", "a", "1e3", "inf", "nan", "-1", "1.2.3", "99999999999999"])
def test_what_is_no_number_of_processors(text: str) -> None:
    with pytest.raises(ValueError):
        values.decimal(text)


def test_processors() -> None:
    assert values.decimal("1.5") == 1.5
    assert values.decimal(".5") == 0.5


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("1.5m", 90), ("2us", 2e-6)]
)
def test_durations(text: str, seconds: float) -> None:
    assert values.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "s", "1x", "1h 2m", "-1s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        values.duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "Less than a second"),
        (-5, "Less than a second"),
        (1.9, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (2 * 3600, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_human_durations(seconds: float, text: str) -> None:
    assert units.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "digits", "text"),
    [(0, 3, "0B"), (999, 3, "999B"), (1000, 3, "1kB"), (12_345_678, 3, "12.3MB"), (187_654_321, 3, "188MB"),
     (1_234_567_890, 4, "1.235GB")],
)  # fmt: skip
def test_human_sizes(count: int, digits: int, text: str) -> None:
    assert units.human_size(count, digits) == text


@given(st.floats(0, 1e30), st.sampled_from([3, 4]))
def test_human_sizes_stay_short(count: float, digits: int) -> None:
    assert len(units.human_size(count, digits)) <= 12


def test_stamps() -> None:
    assert units.stamp(0) == "0001-01-01T00:00:00Z"
    assert units.stamp(NOW + 0.5) == "2023-11-14T22:13:20.500000000Z"


@given(st.floats(1, 4e9))
def test_stamps_read_back(moment: float) -> None:
    assert units.read_moment(units.stamp(moment), NOW) == pytest.approx(moment, abs=1e-5)
    assert units.read_moment(units.local_stamp(moment), NOW) == pytest.approx(moment, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1700000000", NOW),
        ("1700000000.25", NOW + 0.25),
        ("10m", NOW - 600),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T23:13:20+01:00", NOW),
        ("2023-11-14T22:13Z", NOW - 20),
        ("2023-11-14Z", NOW - 22 * 3600 - 13 * 60 - 20),
    ],
)
def test_moments(text: str, moment: float) -> None:
    assert units.read_moment(text, NOW) == pytest.approx(moment)


def test_moments_without_a_zone_are_local() -> None:
    assert units.read_moment(time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(NOW)), NOW) == NOW


@pytest.mark.parametrize("text", ["", "yesterday", "2023-13-01", "2023-11-14T25:00", "x1m"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError):
        units.read_moment(text, NOW)


def test_ellipsis() -> None:
    assert units.ellipsis("abcdef", 6) == "abcdef"
    assert units.ellipsis("abcdefg", 6) == "abcde…"


def test_printable() -> None:
    assert units.printable("a\x1b[31mé\n") == "a\\x1b[31mé\\x0a"
