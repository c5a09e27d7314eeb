"""Contracts in the Open Data Contract Standard: what is written is read back, what cannot be kept is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.core.errors import InvalidInput, NotFound
from taut.core.schema import DType
from taut.project.manifest import ColumnSpec, ContractSpec, RowRuleSpec
from taut.project.odcs import parse_odcs, read_odcs, write_odcs

names = st.text("abcxyz_", min_size=1, max_size=6)
words = st.text(max_size=8)
shares = st.none() | st.floats(0, 1)


@st.composite
def columns(draw: st.DrawFn) -> ColumnSpec:
    dtype = draw(st.sampled_from(list(DType)))
    values: dict[DType, st.SearchStrategy[Any]] = {
        DType.INT: st.integers(-99, 99),
        DType.FLOAT: st.floats(-9, 9),
        DType.STRING: words,
        DType.BOOL: st.booleans(),
        DType.DATE: st.dates().map(str),
        DType.DATETIME: st.datetimes().map(lambda t: t.isoformat()),
    }
    value = values[dtype]
    return ColumnSpec(
        name=draw(names),
        dtype=dtype,
        nullable=draw(st.booleans()),
        minimum=draw(st.none() | value),
        maximum=draw(st.none() | value),
        allowed=draw(st.none() | st.lists(value, max_size=3).map(tuple)),
        pattern=draw(st.none() | words),
        min_length=draw(st.none() | st.integers(0, 9)),
        max_length=draw(st.none() | st.integers(0, 9)),
        unique=draw(st.booleans()),
        required=draw(st.booleans()),
        personal=draw(st.none() | st.sampled_from(["seal", "redact", "tokenise", "pseudonymise", "keep"])),
        max_bad_fraction=draw(shares),
        description=draw(words),
    )


contracts = st.builds(
    ContractSpec,
    columns=st.lists(columns(), min_size=1, max_size=4, unique_by=lambda c: c.name).map(tuple),
    rules=st.lists(
        st.builds(RowRuleSpec, name=names, holds=words, max_bad_fraction=shares, description=words),
        max_size=3,
    ).map(tuple),
    unique=st.lists(st.lists(names, min_size=1, max_size=3).map(tuple), max_size=2).map(tuple),
    extra_columns=st.sampled_from(["reject", "drop"]),
    null_values=st.lists(words, max_size=3).map(tuple),
    max_bad_fraction=st.floats(0, 1),
    min_rows=st.integers(0, 100),
    freshness_column=names,
    max_age=st.sampled_from(["48h", "1.5h", "30d", "15m", "2w", "250ms", "7s"]),
    pii=st.sampled_from(["reject", "redact", "keep"]),
    version=words.filter(bool),
    description=words,
)


@settings(max_examples=60, deadline=None)
@given(contracts)
def test_what_is_written_is_read_back_whole(spec: ContractSpec) -> None:
    assert parse_odcs(write_odcs(spec, name="orders")) == spec


HEAD = "apiVersion: v3.1.0\nkind: DataContract\nversion: 1.0.0\nschema:\n- name: orders\n"
PLAIN = HEAD + "  properties:\n  - {name: id, logicalType: integer, required: true}\n"


def test_a_contract_of_the_standard_is_read(tmp_path: Path) -> None:
    path = tmp_path / "orders.yaml"
    path.write_text(
        HEAD
        + """
  properties:
  - {name: id, logicalType: integer, primaryKey: true, primaryKeyPosition: 1, required: true}
  - {name: line, logicalType: integer, primaryKey: true, primaryKeyPosition: 2, required: true, logicalTypeOptions: {exclusiveMinimum: 0}}
  - name: status
    logicalType: string
    quality:
    - {type: library, metric: invalidValues, arguments: {validValues: [new, paid]}, mustBeLessThan: 5, unit: percent}
    - {type: text, description: see the wiki}
  - {name: key, logicalType: string, logicalTypeOptions: {format: uuid}}
  - {name: day, logicalType: date, logicalTypeOptions: {minimum: 2013-01-01}}
  - {name: at, logicalType: date, logicalTypeOptions: {format: "yyyy-MM-ddTHH:mm:ssZ"}}
  quality:
  - {type: library, metric: rowCount, mustBeGreaterThan: 9}
  - {type: custom, engine: taut, name: order, implementation: "id > line", mustBeLessThan: 1, unit: percent}
slaProperties:
- {property: latency, value: 4, unit: d}
- {property: freshness, value: 2, unit: days, element: orders.at}
"""
    )

    spec = read_odcs(path)

    by_name = {column.name: column for column in spec.columns}
    assert spec.unique == (("id", "line"),)
    assert by_name["status"].allowed == ("new", "paid")
    assert by_name["status"].max_bad_fraction == 0.05
    assert by_name["status"].nullable
    assert by_name["key"].pattern is not None
    assert by_name["day"].minimum == "2013-01-01"
    assert by_name["at"].dtype is DType.DATETIME
    assert spec.min_rows == 10
    assert [rule.name for rule in spec.rules] == ["line > 0", "order"]
    assert (spec.freshness_column, spec.max_age) == ("at", "2d")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no contract"),
        ("[1, 2]", "no contract"),
        ("a: [1\nb: 2", "line 2"),
        (PLAIN.replace("v3.1.0", "v2.2.2"), "reads v3.0 and v3.1"),
        (PLAIN.replace("DataContract", "DataProduct"), "not DataContract"),
        (PLAIN.replace("integer", "intger"), "did you mean 'integer'"),
        (PLAIN.replace("required", "requierd"), "'requierd' is unknown: did you mean 'required'"),
        (PLAIN.replace("required: true", "required: yes please"), "write true or false"),
        (PLAIN + "  - {name: id, logicalType: string}\n", "declared twice"),
        (PLAIN + "kind: DataContract\n", "line 8: 'kind' is written twice"),
        (HEAD, "has no properties"),
        (PLAIN + "  quality: [{type: sql, query: SELECT 1, mustBe: 0}]\n", "is a query"),
        (PLAIN + "  quality: [{type: custom, engine: soda}]\n", "cannot run it"),
        (PLAIN + "  quality: [{metric: rowCont}]\n", "did you mean 'rowCount'"),
        (PLAIN + "  quality: [{metric: nullValues, mustBe: 0}]\n", "which column"),
        (PLAIN + "  quality: [{metric: duplicateValues, mustBeLessThan: 9, arguments: {properties: [id]}}]\n", "mustBe: 0"),
        (PLAIN + "customProperties: [{property: taut.maxBadFracton, value: 1}]\n", "did you mean 'taut.maxBadFraction'"),
        (PLAIN + "slaProperties: [{property: freshness, value: 1, unit: d}]\n", "needs element"),
        (PLAIN + "slaProperties: [{property: freshness, value: 1, unit: moons, element: orders.id}]\n", "'moons' is unknown"),
        (PLAIN + "- name: lines\n  properties: []\n", "say which"),
        ("x: &a [1]\n" + PLAIN.replace("name: orders", "name: orders\n  physicalNme: x"), "'physicalNme' is unknown"),
        ("!!python/object/apply:os.system ['true']", "no YAML"),
        (PLAIN.replace("logicalType: integer", "logicalType: [integer]"), "logicalType must be a word"),
        (PLAIN + "  quality: [{metric: {rowCount: 1}}]\n", "metric must be a word"),
    ],
)  # fmt: skip
def test_what_is_no_contract_or_cannot_be_kept_is_refused_and_named(text: str, said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_odcs(text)

    assert said in str(raised.value)


def test_one_of_several_tables_is_named_after_the_path(tmp_path: Path) -> None:
    path = tmp_path / "all.yaml"
    path.write_text(PLAIN + "- name: lines\n  properties: [{name: n, logicalType: number}]\n")

    assert read_odcs(Path(f"{path}#lines")).columns[0].name == "n"
    with pytest.raises(InvalidInput, match="did you mean 'lines'"):
        read_odcs(Path(f"{path}#linse"))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_bytes(b"name: \xff\n")

    with pytest.raises(InvalidInput, match="byte 6 is not utf-8"):
        read_odcs(tmp_path / "orders.yaml")
    with pytest.raises(NotFound, match=r"did you mean 'orders.yaml'"):
        read_odcs(tmp_path / "order.yaml")
    with pytest.raises(InvalidInput):
        read_odcs(tmp_path)


def test_a_deep_or_repeating_document_costs_nothing() -> None:
    bomb = "a: &a [x, x]\n" + "".join(
        f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )

    with pytest.raises(InvalidInput):
        parse_odcs(bomb)
    with pytest.raises(InvalidInput):
        parse_odcs("[" * 5000)
    deep = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}x]\n" for n in range(1, 12))
    with pytest.raises(InvalidInput, match="aliases unfold to more than"):
        parse_odcs(deep + PLAIN.replace("logicalType: integer", "logicalType: *a11"))
