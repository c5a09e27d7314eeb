from __future__ import annotations

import random
import time

import polars as pl
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.trust.pii import TYPES, Finding, checksums, find, redact, scan
from taut.trust.pii.detectors import ALL, DETECTORS

# Numbers that their issuers publish as examples, or that were made up with a right checksum.
FOUND = {
    "email": ["jane.doe+x@mail.example.org", "o'neil@example.co.uk", "user@exämple.de", "<a@b.co>", "mailto:a@b.io"],
    "phone": [
        "+41 44 668 18 00", "+1-202-555-0143", "+442079460958", "0041 44 668 18 00", "(202) 555-0143", "202-555-0143",
        "202.555.0143", "1 202 555 0143", "020 7946 0958", "01.84.17.61.18", "+46 (0)8 928 571 38", "phone: 555 0143 22",
        "call 60-56-85-91", "79 271 81 15 office", "001-253-366-9781", "463-612-6138x036",
    ],
    "credit_card": [
        "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "30569309025904", "6011111111111117",
        "3530111333300000", "2223003122003222", "4222222222222",
    ],
    "iban": ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "fr1420041010050500013m02606", "NO9386011117947"],
    "us_ssn": ["078-05-1120", "457-55-5462"],
    "ip_address": ["192.0.2.17", "10.1.2.3", "2001:db8::8a2e:370:7334", "fe80::1", "::ffff:192.0.2.1"[2:]],
    "national_id": [
        "1 85 05 78 006 084 91", "12345678Z", "X1234567L", "RSSMRA85T10A562S", "529.982.247-25", "131052-308T",
        "811218-9876", "19811218-9876",
    ],
    "secret": [
        "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "sk-proj-" + "Ab1_" * 8, "sk_live_" + "a" * 24, "xoxb-1234567890-abc",
        "AIza" + "b" * 35, "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0abc.c2lnbmF0dXJl", "taut_" + "k" * 30,
    ],
}  # fmt: skip
CLEAN = [
    "", "hello", "a@b", "@", "user@", "12345", "1234567", "4111111111111112", "4111 1111 1111 1111 9", "0000000000000000",
    "GB83 WEST 1234 5698 7654 32", "XX82 WEST 1234 5698 7654 32", "078-05-0000", "000-12-3456", "900-12-3456", "666-12-3456",
    "1.2.3", "1.2.3.4.5", "256.1.1.1", "127.0.0.1", "0.0.0.0", "12:30:45", "2013-01-01 05:00:00", "2013-01-01T05:00:00Z",
    "12345678A", "X1234567A", "RSSMRA85T10A562X", "529.982.247-24", "131052-308U", "811218-9875", "N14228", "JFK-LAX",
    "1357034400", "1357034400000", "3.14159265358979", "-73.778924", "550e8400-e29b-41d4-a716-446655440000",
    "d41d8cd98f00b204e9800998ecf8427e", "v1.10.2.7-beta", "AKIA", "sk-short", "2020/01/02", "01/02/2020", "100,000,000.00",
    "555 0143", "12-34-56-78", "::", "1::", "order 60-56-85-91", "xAKIAIOSFODNN7EXAMPLEx", "00:1A:2B:3C:4D:5E",
]  # fmt: skip


@pytest.mark.parametrize(("type_", "text"), [(type_, text) for type_ in FOUND for text in FOUND[type_]])
def test_each_kind_is_found_alone_and_in_a_sentence(type_: str, text: str) -> None:
    for value in (text, f"Well, {text}; said she."):
        assert [span.type for span in find(value)] == [type_], value
        assert set(scan(pl.Series(["x", value, None]))) == {type_}


@pytest.mark.parametrize("text", CLEAN)
def test_what_only_looks_alike_is_left_alone(text: str) -> None:
    assert find(text) == []
    assert scan(pl.Series([text])) == {}


def test_every_type_has_examples_and_every_pattern_compiles() -> None:
    assert set(FOUND) == set(TYPES)
    for detector in DETECTORS:
        re2.compile(detector.pattern)
        assert pl.Series(["x"]).str.contains(detector.hint).to_list() is not None
        assert pl.Series(["x"]).str.contains(detector.pattern).to_list() is not None


def test_counts_are_values_and_first_rows_are_rows() -> None:
    series = pl.Series(["x", "a@b.co c@d.co", None, "a@b.co c@d.co", "192.0.2.1 a@b.co", "y"])
    assert scan(series) == {
        "email": Finding(count=3, first_row=1),
        "ip_address": Finding(count=1, first_row=4),
    }


def test_a_sample_looks_at_evenly_spread_values() -> None:
    series = pl.Series(["x"] * 500 + ["a@b.co"] * 500)
    assert scan(series, sample=100) == {"email": Finding(count=50, first_row=500)}
    with pytest.raises(InvalidInput):
        scan(series, sample=0)


def test_integers_are_read_as_digits_and_other_types_hold_nothing() -> None:
    assert scan(pl.Series([1, 4111111111111111, None])) == {"credit_card": Finding(count=1, first_row=1)}
    assert scan(pl.Series([-(2**63), 2**63 - 1])) == {}
    assert scan(pl.Series([2**64 - 1], dtype=pl.UInt64)) == {}
    for empty in (
        pl.Series([1.5]),
        pl.Series([True]),
        pl.Series([None]),
        pl.Series([], dtype=pl.Int64),
        pl.Series([], dtype=pl.String),
    ):
        assert scan(empty) == {}
        assert redact(empty).equals(empty)


def test_redaction_replaces_findings_and_nothing_else() -> None:
    series = pl.Series("note", ["mail a@b.co, call +41 44 668 18 00.", None, "plain", "a@b.co"])
    redacted = redact(series)
    assert redacted.to_list() == ["mail [email], call [phone].", None, "plain", "[email]"]
    assert redacted.name == "note"
    assert series[0] == "mail a@b.co, call +41 44 668 18 00."
    assert redact(pl.Series([1, 4111111111111111])).to_list() == [1, None]
    assert redact(pl.Series(["a@b.co", "x"], dtype=pl.Categorical)).to_list() == ["[email]", "x"]


@pytest.mark.parametrize("before", ["1234", "001-253-366-9781", "2013-07-01 12", "7"])
def test_a_number_before_a_card_does_not_hide_it(before: str) -> None:
    text = f"{before} 4111 1111 1111 1111"

    assert [text[span.start : span.end] for span in find(text) if span.type == "credit_card"] == [
        "4111 1111 1111 1111"
    ]


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from([text for texts in FOUND.values() for text in texts]) | st.text(max_size=12),
        max_size=5,
    ),
    glue=st.sampled_from([" ", ", ", "\n", "; "]),
)
def test_nothing_is_found_in_what_was_redacted(parts: list[str], glue: str) -> None:
    (once,) = redact(pl.Series([glue.join(parts)], dtype=pl.String)).to_list()
    (twice,) = redact(pl.Series([once], dtype=pl.String)).to_list()
    # the mark "[phone]" is itself a word that makes digits beside it a weak phone number
    assert {span.type for span in find(twice)} <= {"phone"}


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="0123456789.-:+@ abcxGB()/_", max_size=40) | st.text(max_size=40))
def test_the_hints_lose_no_finding(text: str) -> None:
    """The column's cheap way and the value's thorough way agree."""
    assert set(scan(pl.Series([text], dtype=pl.String))) == {span.type for span in find(text)}


@settings(max_examples=100, deadline=None)
@given(number=st.integers(10**11, 10**18).map(str), at=st.integers(0, 10), by=st.integers(1, 9))
def test_luhn_catches_every_single_wrong_digit(number: str, at: int, by: int) -> None:
    valid = next(number[:-1] + str(last) for last in range(10) if checksums.luhn(number[:-1] + str(last)))
    wrong = valid[:at] + str((int(valid[at]) + by) % 10) + valid[at + 1 :]
    assert not checksums.luhn(wrong)


def test_hostile_text_takes_linear_time() -> None:
    hostile = [
        "a@" * 50_000,
        "1 " * 50_000,
        "+" * 100_000,
        "a." * 50_000 + "@",
        "eyJ" * 30_000,
        "(" * 100_000,
        "-----BEGIN " * 9_000,
    ]
    for text in hostile:
        started = time.process_time()
        find(text)
        assert time.process_time() - started < 5, text[:10]


def test_a_million_plain_values_cost_little() -> None:
    source = random.Random(0)
    short = pl.Series(
        [source.choice(["AA", "UA", "JFK", "delta flight"]) + str(index % 97) for index in range(200_000)]
    )
    started = time.process_time()
    assert scan(short) == {}
    assert scan(pl.Series(range(200_000))) == {}
    assert time.process_time() - started < 2  # measured: 0.02 s


def test_a_detector_that_is_switched_off_finds_nothing() -> None:
    assert find("a@b.co", detectors=ALL & ~2) == []
    assert DETECTORS[1].type == "email"
