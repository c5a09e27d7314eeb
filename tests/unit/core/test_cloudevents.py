"""CloudEvents: what is written reads back, and what is none says why."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taut.core.cloudevents import (
    Event,
    check_json,
    decode_event,
    encode_event,
    event_key,
    from_attributes,
    is_json,
)
from taut.core.errors import InvalidInput

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(id_=TEXT, source=TEXT, kind=TEXT, value=JSON_VALUES, subject=st.text(max_size=5))
def test_a_json_event_reads_back_as_it_was(
    id_: str, source: str, kind: str, value: object, subject: str
) -> None:
    try:
        data = json.dumps(value).encode()
        event = Event(id=id_, source=source, type=kind, data=data, subject=subject)
        document = encode_event(event)
    except UnicodeEncodeError:
        return  # half a surrogate: no text
    assert decode_event(document) == event
    assert json.loads(document)["data"] == value


@given(data=st.binary(max_size=100))
def test_bytes_of_any_kind_read_back(data: bytes) -> None:
    event = Event(id="1", source="s", type="t", data=data, content_type="application/octet-stream")
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "no CloudEvent"),
        (b"[]", "no CloudEvent"),
        (b'{"id":"1"}', "specversion"),
        (b'{"specversion":"0.3","id":"1","source":"s","type":"t"}', "specversion"),
        (b'{"specversion":"1.0","id":"","source":"s","type":"t"}', "id has 0"),
        (b'{"specversion":"1.0","id":"1","source":"' + b"s" * 513 + b'","type":"t"}', "source has 513"),
        (b'{"specversion":"1.0","id":1,"source":"s","type":"t"}', "no CloudEvent"),
        (b'{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"%%"}', "base64"),
        (b'{"specversion":"1.0","id":"\xff","source":"s","type":"t"}', "no CloudEvent"),
        (b"[" * 100_000, "no CloudEvent"),
    ],
)
def test_what_is_no_event_says_why(document: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        decode_event(document)


def test_the_binary_form_needs_the_attributes_that_cloudevents_asks_for() -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "x", "unknown": "y"}
    assert from_attributes(attributes, b"1") == Event(id="1", source="s", type="t", subject="x", data=b"1")
    for name in ("specversion", "id", "source", "type"):
        with pytest.raises(InvalidInput, match=name):
            from_attributes({key: value for key, value in attributes.items() if key != name}, b"1")


@given(st.lists(TEXT, min_size=2, max_size=4), st.lists(TEXT, min_size=2, max_size=4))
def test_keys_of_different_parts_differ(left: list[str], right: list[str]) -> None:
    assert (event_key(*left) == event_key(*right)) == (left == right)
    assert len(event_key(*left)) == 32


def test_exactly_one_json_value_is_json() -> None:
    for good in (b"1", b" {} ", b'"x"', b"[1, 2]"):
        check_json(good)
    for bad in (b"", b"1 2", b"{},{}", b"{", b"NaN", b"\xff"):
        with pytest.raises(InvalidInput):
            check_json(bad)
    assert is_json("application/json; charset=utf-8")
    assert is_json("application/vnd.x+json")
    assert not is_json("text/plain")
