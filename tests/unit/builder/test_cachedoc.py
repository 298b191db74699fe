"""What a cache says in a registry: written by us, read from strangers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scow.api import Corrupt, Descriptor, Digest, NotFound, ScowError
from scow.engine.building import Layer, Record
from scow_plugins.builder._cachedoc import NAME, Noted, layer_of, read, write

KEYS = ["a" * 64, "b" * 64, "c" * 64]


def layer(text: str) -> Layer:
    digest = Digest.of(text.encode())
    return Layer(Descriptor("application/vnd.oci.image.layer.v1.tar", digest, 5), digest)


def noted(key: str, made: Layer, created: float = 7.5) -> Noted:
    blob = made.descriptor
    return Noted(key, Record(str(made.diff_id), str(blob.digest), blob.size, blob.media_type, created))


def test_there_and_back() -> None:
    one, two, other = layer("1"), layer("2"), layer("3")
    steps = [noted(KEYS[1], two), noted(KEYS[0], one), noted(KEYS[2], other)]
    data = json.loads(json.dumps(write(steps, {KEYS[0]: "yes", KEYS[1]: "no such value"}, [one, two])))
    assert data == {"version": 1, "records": [[KEYS[0], 0, 7], [KEYS[1], 1, 7]], "memos": [[KEYS[0], "yes"]]}
    known = read({NAME: data}, [one, two], "x")
    assert {key: layer_of(record) for key, record in known.records.items()} == {KEYS[0]: one, KEYS[1]: two}
    assert known.memos == {KEYS[0]: "yes"}


def test_an_image_without_one() -> None:
    with pytest.raises(NotFound, match="x has no cache"):
        read({}, [], "x")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"version": "1", "records": []},
        {"version": 1, "records": [["short", 0, 0]]},
        {"version": 1, "records": [[KEYS[0], 1, 0]]},
        {"version": 1, "records": [[KEYS[0], 0, -1]]},
        {"version": 1, "records": [[KEYS[0], 0, float("inf")]]},
        {"version": 1, "records": [], "memos": [[KEYS[0], "../x"]]},
        {"version": 1, "records": [], "memos": [["x", "yes"]]},
    ],
)
def test_what_can_not_be(data: Any) -> None:
    with pytest.raises(Corrupt):
        read({NAME: data}, [layer("1")], "x")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(KEYS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["version", "records", "memos"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_anything_else_is_refused_or_makes_sense(data: Any) -> None:
    try:
        known = read({NAME: data}, [layer("1")], "x")
    except ScowError:
        return
    assert all(layer_of(record) == layer("1") and record.created >= 0 for record in known.records.values())
