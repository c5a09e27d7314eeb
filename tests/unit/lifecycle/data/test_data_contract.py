"""Contracts on frames: every broken value found, named by its rule, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import polars as pl
import pytest
import re2
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from taut.core.errors import InvalidInput
from taut.core.schema import DType
from taut.lifecycle.data import CompiledContract
from taut.lifecycle.data.casts import to_types
from taut.lifecycle.data.patterns import full_match, rust_pattern
from taut.lifecycle.data.unique import SeenKeys
from taut.project.manifest import ColumnSpec, ContractSpec, RowRuleSpec

NULLS = ("", "NA", "NaN", "null")


def cast(dtype: DType, *values: str | None) -> tuple[list[Any], list[bool]]:
    spec = ColumnSpec(name="a", dtype=dtype)
    typed, broken = to_types(pl.DataFrame({"a": values}, schema={"a": pl.String}), (spec,), null_values=NULLS)
    return typed["a"].to_list(), broken.get("a", pl.Series([False] * len(values))).to_list()


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        (
            DType.INT,
            ["1", "-7", "9223372036854775807"],
            ["1.0", " 1", "1_000", "9223372036854775808", "0x1", "١"],
        ),
        (DType.FLOAT, ["1", "1.5", "-0", "1e3"], ["1,5", "1.5d", " 1", "one"]),
        (DType.BOOL, ["true", "FALSE", "1", "0"], ["yes", "2", "t"]),
        (
            DType.DATE,
            ["2013-02-28", "2024-02-29"],
            ["2013-02-30", "2023-02-29", "0000-01-01", "20130203", "x"],
        ),
        (
            DType.DATETIME,
            ["2013-01-01T05:00:00Z", "2013-01-01 05:00:00", "2013-01-01T05:00:00.5+02:00"],
            ["2013-01-01T25:00:00Z", "2013-02-30T00:00:00", "2013-01-01", "05:00", "10000-01-01T00:00:00"],
        ),
    ],
)
def test_text_becomes_its_type_exactly_or_is_broken(dtype: DType, good: list[str], bad: list[str]) -> None:
    values, broken = cast(dtype, *good, *bad, *NULLS)

    assert broken == [False] * len(good) + [True] * len(bad) + [False] * len(NULLS)
    assert all(value is not None for value in values[: len(good)])
    assert values[len(good) :] == [None] * (len(bad) + len(NULLS))


def test_times_with_an_offset_are_moved_to_utc_and_those_without_are_taken_as_utc() -> None:
    values, _ = cast(
        DType.DATETIME, "2013-01-01T05:00:00+02:00", "2013-01-01 05:00:00", "2013-01-01T05:00:00Z"
    )

    assert [value.isoformat() for value in values] == [
        "2013-01-01T03:00:00+00:00",
        "2013-01-01T05:00:00+00:00",
        "2013-01-01T05:00:00+00:00",
    ]


def test_a_float_column_of_parquet_becomes_integers_only_where_nothing_is_lost() -> None:
    frame = pl.DataFrame({"a": [1.0, 1.5, None, float("nan"), 1e300]})

    typed, broken = to_types(frame, (ColumnSpec(name="a", dtype=DType.INT),), null_values=())

    assert typed["a"].to_list() == [1, None, None, None, None]
    assert broken["a"].to_list() == [False, True, False, True, True]


CONTRACT = ContractSpec(
    columns=(
        ColumnSpec(name="n", dtype=DType.INT, minimum=-5, maximum=5),
        ColumnSpec(name="x", dtype=DType.FLOAT, nullable=True, minimum=0.0, maximum=1.0),
        ColumnSpec(
            name="s",
            dtype=DType.STRING,
            nullable=True,
            allowed=("bb", "ccc"),
            min_length=2,
            pattern="[a-z]+",
        ),
    ),
    rules=(RowRuleSpec(name="order", holds="n > x"),),
)


def oracle(n: int | None, x: float | None, s: str | None) -> set[str]:
    """The same contract, said in plain Python."""
    found = set()
    if n is None:
        found.add("n:null")
    else:
        found |= {"n:minimum"} if n < -5 else set()
        found |= {"n:maximum"} if n > 5 else set()
    if x is not None:
        if x != x or x in (float("inf"), float("-inf")):
            found.add("x:finite")
        found |= {"x:minimum"} if x < 0 else set()
        found |= {"x:maximum"} if x > 1 else set()
    if s is not None:
        found |= {"s:allowed"} if s not in ("bb", "ccc") else set()
        found |= {"s:min_length"} if len(s) < 2 else set()
        found |= {"s:pattern"} if not re.fullmatch("[a-z]+", s) else set()
    if n is None or x is None or not n > x:
        found.add("_row:order")
    return found


rows_strategy = st.lists(
    st.tuples(
        st.none() | st.integers(-8, 8),
        st.none() | st.floats(-1, 2) | st.sampled_from([float("inf"), float("-inf")]),
        st.none() | st.sampled_from(["a", "bb", "ccc", "", "B", "zz", "é"]),
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(rows_strategy)
def test_a_contract_finds_what_plain_python_finds_row_by_row(table: list[tuple[Any, Any, Any]]) -> None:
    frame = pl.DataFrame(table, schema={"n": pl.Int64, "x": pl.Float64, "s": pl.String}, orient="row")

    checked = CompiledContract(CONTRACT).check(frame)

    wanted = [oracle(*row) for row in table]
    assert checked.holds.to_list() == [not broken for broken in wanted]
    assert [set(names) for names in checked.reasons()] == [broken for broken in wanted if broken]
    for rule, count in checked.counts.items():
        assert count == sum(rule in broken for broken in wanted)


def test_a_large_frame_gives_the_same_as_its_parts_in_the_same_order() -> None:
    n = 200_000
    values = pl.int_range(n, eager=True)
    frame = pl.DataFrame(
        {"n": values * 7919 % 13 - 6, "x": (values % 5) / 4, "s": ["bb", "é", None, "B"] * (n // 4)}
    )
    contract = CompiledContract(CONTRACT)

    whole = contract.check(frame)
    parts = [contract.check(part) for part in frame.iter_slices(10_000)]

    assert whole.holds.equals(pl.concat([part.holds for part in parts]))
    assert whole.reasons() == [names for part in parts for names in part.reasons()]
    assert 0 < whole.bad < n


def test_nan_breaks_the_rule_for_finite_values_and_no_bound() -> None:
    frame = pl.DataFrame({"n": [1], "x": [float("nan")], "s": ["bb"]})
    contract = CompiledContract(ContractSpec(columns=CONTRACT.columns))

    assert contract.check(frame).reasons() == [("x:finite",)]


def test_a_value_of_the_wrong_type_is_no_null_and_breaks_no_other_rule() -> None:
    spec = ContractSpec(columns=(ColumnSpec(name="n", dtype=DType.INT, minimum=0),))
    typed, broken = to_types(pl.DataFrame({"n": ["x", "", "1"]}), spec.columns, null_values=("",))

    checked = CompiledContract(spec).check(typed, broken_types=broken)

    assert checked.reasons() == [("n:type",), ("n:null",)]


def test_a_rule_that_is_left_out_is_not_found() -> None:
    without = ContractSpec(columns=CONTRACT.columns[:2])
    frame = pl.DataFrame({"n": [1], "x": [0.5], "s": ["zz"]})

    assert CompiledContract(CONTRACT).check(frame).bad == 1
    assert CompiledContract(without).check(frame.drop("s")).bad == 0


PATTERN_PARTS = ["a", "b", "[a-c]", r"[\d\-_]", r"\d", r"\w", r"\s", r"\S", r"\bq", ".", "a|b", "(ab)", "a*", "b?", "c{1,3}", r"\.", "[^a]", r"[[:alpha:]]", r"[a&&b]", r"[[x]", "(?i:K)", r"\<", "[]a]", "[a~~b]", "[^]a]", r"\W"]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PATTERN_PARTS), min_size=1, max_size=4).map("".join),
    st.lists(st.text(alphabet="abckq-_&~[]x. \t\v\n7٣éKſ<", max_size=5), max_size=12),
)
def test_patterns_mean_what_re2_means_by_them(pattern: str, values: list[str]) -> None:
    try:
        compiled = re2.compile(pattern)
    except re2.error:
        assume(False)
    frame = pl.DataFrame({"v": [*values, None]}, schema={"v": pl.String})

    found = frame.select(full_match(pl.col("v"), pattern)).to_series().to_list()

    assert found == [compiled.fullmatch(value) is not None for value in values] + [None]


@pytest.mark.parametrize("pattern", [r"\Bx", r"\101", r"\Qa.b\E"])
def test_what_polars_engine_cannot_say_is_left_to_re2(pattern: str) -> None:
    compiled = re2.compile(pattern)
    values = ["x", "A", "a", "z", "-", "a.b", "axb"]

    assert rust_pattern(pattern) is None
    found = pl.DataFrame({"v": values}).select(full_match(pl.col("v"), pattern)).to_series().to_list()
    assert found == [compiled.fullmatch(value) is not None for value in values]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.none() | st.integers(0, 20), st.sampled_from("ab")), max_size=15), max_size=6
    )
)
def test_a_key_is_seen_once_whatever_batches_it_comes_in(batches: list[list[tuple[int | None, str]]]) -> None:
    seen, plain = SeenKeys(("k", "s")), set[tuple[int | None, str]]()
    assert seen.name == "k+s:unique"
    for batch in batches:
        frame = pl.DataFrame(batch, schema={"k": pl.Int64, "s": pl.String}, orient="row")
        wanted = []
        for key in batch:
            wanted.append(key[0] is not None and key in plain)
            plain |= {key} if key[0] is not None else set()
        assert seen.add(frame).to_list() == wanted


def test_a_compiled_contract_refuses_one_that_contradicts_itself() -> None:
    spec = ContractSpec(columns=(ColumnSpec(name="n", dtype=DType.INT, minimum=2, maximum=1),))

    with pytest.raises(InvalidInput, match="column 'n': minimum 2 is above maximum 1"):
        CompiledContract(spec)
