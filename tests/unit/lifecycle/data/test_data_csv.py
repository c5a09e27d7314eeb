"""Reading CSV: every record once, whatever is wrong with its neighbours."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.schema import DType
from taut.lifecycle.data.csv_records import read_csv
from taut.lifecycle.data.records import MAX_FIELD_BYTES, BatchRefused, Malformed, RecordChunk, Wanted
from taut.project.manifest import ColumnSpec

WANTED = Wanted(
    columns=(ColumnSpec(name="a", dtype=DType.STRING), ColumnSpec(name="b", dtype=DType.STRING)),
    extra_columns="drop",
)


def read(data: bytes, *, chunk_bytes: int = 1 << 20, **named: str) -> list[RecordChunk]:
    return list(read_csv(io.BytesIO(data), WANTED, file="f.csv", chunk_bytes=chunk_bytes, **named))


def rows(chunks: list[RecordChunk]) -> list[tuple[int, str, str]]:
    return [row for chunk in chunks for row in chunk.frame.rows()]


def malformed(chunks: list[RecordChunk]) -> Iterator[Malformed]:
    return (odd for chunk in chunks for odd in chunk.malformed)


cells = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(cells, cells), min_size=1, max_size=30),
    st.integers(3, 64),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_a_csv_writer_wrote_is_read_back_in_any_chunks(
    table: list[tuple[str, str]], chunk_bytes: int, end: str
) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("a", "b"), *table])

    found = rows(read(text.getvalue().encode(), chunk_bytes=chunk_bytes))

    assert found == [(n, a, b) for n, (a, b) in enumerate(table, 1)]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab,"\n\r', max_size=60), st.integers(1, 40))
def test_no_text_however_broken_loses_or_doubles_a_record(body: str, chunk_bytes: int) -> None:
    data = b"a,b\n" + body.encode()

    whole, pieces = read(data), read(data, chunk_bytes=chunk_bytes)

    for chunks in (whole, pieces):
        numbers = sorted([row[0] for row in rows(chunks)] + [odd.row for odd in malformed(chunks)])
        assert numbers == list(range(1, sum(chunk.records for chunk in chunks) + 1))
    assert rows(whole) == rows(pieces)
    assert [(o.row, o.rule, o.raw) for o in malformed(whole)] == [
        (o.row, o.rule, o.raw) for o in malformed(pieces)
    ]


def test_columns_are_found_by_their_names_wherever_they_stand() -> None:
    assert rows(read(b"x,b,a\n1,2,3\n")) == [(1, "3", "2")]


def test_records_with_too_few_and_too_many_fields_are_named_with_their_text() -> None:
    chunks = read(b"a,b\n1,2\n3\n4,5,6\n7,8\n")

    assert rows(chunks) == [(1, "1", "2"), (4, "7", "8")]
    assert [(o.row, o.rule, o.raw) for o in malformed(chunks)] == [
        (2, "_record:fields", "3"),
        (3, "_record:fields", "4,5,6"),
    ]


def test_a_stray_quote_breaks_its_own_line_only() -> None:
    chunks = read(b'a,b\n5" pipe,x\n"fine, really",y\n"never closed,z\nlast,w\n')

    assert rows(chunks) == [(2, "fine, really", "y"), (4, "last", "w")]
    assert [(o.row, o.rule) for o in malformed(chunks)] == [(1, "_record:quotes"), (3, "_record:quotes")]


def test_a_byte_that_is_not_utf8_is_named_with_its_place_in_the_file() -> None:
    data = b"a,b\nok,1\nna\xefve,2\nok,3\n"

    chunks = read(data, chunk_bytes=6)

    assert [row[1] for row in rows(chunks)] == ["ok", "ok"]
    (odd,) = malformed(chunks)
    assert (odd.row, odd.rule) == (2, "_record:encoding")
    assert f"byte {data.index(0xEF)} " in odd.message


def test_other_encodings_are_read_when_they_are_declared() -> None:
    text = "a,b\nnaïve,1\n"

    assert rows(read(text.encode("latin-1"), encoding="latin-1")) == [(1, "naïve", "1")]
    assert rows(read(text.encode("utf-16"), encoding="utf-16", chunk_bytes=5)) == [(1, "naïve", "1")]
    assert rows(read(b"\xef\xbb\xbf" + text.encode())) == [(1, "naïve", "1")]


@pytest.mark.parametrize(
    ("data", "encoding", "said"),
    [
        (b"", "utf-8", "empty"),
        ("a,b\n1,2\n".encode("utf-16"), "utf-8", "utf-16"),
        (b"a,\xff\n1,2\n", "utf-8", "byte 2 is not utf-8"),
        (b"a,b\n\xff,2\n", "ascii", "byte 4"),
        (b"a,b\n\x81,2\n", "cp1252", "byte 4"),
        (b"a,c\n1,2\n", "utf-8", "column 'b' is missing"),
        (b"a,b,a\n1,2,3\n", "utf-8", "2 times"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_is_refused_and_says_why(
    data: bytes, encoding: str, said: str
) -> None:
    if encoding == "ascii":
        (odd,) = malformed(read(data, encoding=encoding))
        assert said in odd.message
        return
    with pytest.raises(BatchRefused, match=said):
        read(data, encoding=encoding)


def test_a_field_beyond_its_bound_is_set_aside_and_memory_stays_bounded() -> None:
    huge = b"x" * (MAX_FIELD_BYTES + 1)

    chunks = read(b"a,b\n" + huge + b",1\n" + b'"' + huge + b'",2\nsmall,3\n', chunk_bytes=1 << 16)

    assert rows(chunks) == [(3, "small", "3")]
    found = list(malformed(chunks))
    assert [odd.rule for odd in found] == ["_record:field_size"] * 2
    assert all(len(odd.raw) < MAX_FIELD_BYTES for odd in found)


def test_a_line_that_never_ends_is_cut_once_and_the_next_is_read() -> None:
    endless = b"x" * (20 << 20)

    chunks = read(b"a,b\n" + endless + b"\nsmall,3\n", chunk_bytes=1 << 20)

    assert [odd.rule for odd in malformed(chunks)] == ["_record:field_size"]
    assert rows(chunks) == [(2, "small", "3")]


def test_blank_lines_are_no_records() -> None:
    assert rows(read(b"\na,b\n\n1,2\n\r\n3,4\n\n")) == [(1, "1", "2"), (2, "3", "4")]
