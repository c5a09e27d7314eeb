"""Canonical JSON: equal values give equal bytes, and nothing that JSON lacks gets through."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.canonical import canonical_json
from taut.core.errors import InvalidInput

text = st.text(st.characters(codec="utf-8"), max_size=10)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=15,
)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(item) for key, item in reversed(value.items())}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(values)
def test_the_order_of_keys_does_not_matter_and_the_value_comes_back(value: Any) -> None:
    encoded = canonical_json(value)

    assert canonical_json(reordered(value)) == encoded
    assert json.loads(encoded) == value
    assert canonical_json(json.loads(encoded)) == encoded


@given(
    st.lists(st.sampled_from(["list", "dict", "beside null"]), max_size=5),
    st.sampled_from(["nan", "inf", "-inf"]),
)
def test_a_number_that_json_lacks_is_refused_however_deep(path: list[str], number: str) -> None:
    value: Any = float(number)
    for step in path:
        value = {"list": [value], "dict": {"x": value}, "beside null": [None, "null", value]}[step]

    with pytest.raises(InvalidInput, match="JSON has no such number"):
        canonical_json(value)


@pytest.mark.parametrize("value", [object(), {"x": {1, object()}}, lambda: None])
def test_what_json_cannot_carry_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput):
        canonical_json(value)


def test_a_set_is_written_the_same_way_in_every_process() -> None:
    script = (
        "from taut.core.canonical import canonical_json as c; print(c({'a': {'x', 'zz', 'y', 'qq', 'w'}}))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2", "3", "4")
    }

    assert len(said) == 1


@pytest.mark.parametrize("value", ["\ud800", ["a", "\udfff"], {"\ud800": 1}])
def test_half_a_surrogate_is_refused_in_words(value: Any) -> None:
    with pytest.raises(InvalidInput, match="JSON"):
        canonical_json(value)
