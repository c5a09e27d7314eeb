"""A contract that contradicts itself is refused before a record is read, each fault with its column."""

from __future__ import annotations

from typing import Any

import pytest

from taut.core.errors import InvalidInput
from taut.core.schema import DType
from taut.project.contract import check_contract, check_dataset, contract_faults, dataset_faults
from taut.project.manifest import ColumnSpec, ContractSpec, DatasetSpec, RowRuleSpec, SourceSpec

N = ColumnSpec(name="n", dtype=DType.INT)
S = ColumnSpec(name="s", dtype=DType.STRING)
AT = ColumnSpec(name="at", dtype=DType.DATETIME)


def column(name: str = "c", dtype: DType = DType.INT, **fields: Any) -> ColumnSpec:
    return ColumnSpec(name=name, dtype=dtype, **fields)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (column(minimum=2, maximum=1), "column 'c': minimum 2 is above maximum 1"),
        (column(dtype=DType.DATE, minimum="2014-01-01", maximum="2013-01-01"), "above maximum"),
        (column(minimum="x"), "column 'c': minimum 'x' is no int"),
        (column(minimum=1.5), "minimum 1.5 is no int"),
        (column(dtype=DType.DATE, maximum="2013-02-30"), "maximum '2013-02-30' is no date"),
        (column(dtype=DType.BOOL, minimum=0), "minimum has no meaning for bool"),
        (column(allowed=(1, 9), maximum=5), "allowed value 9 is outside"),
        (column(allowed=(1, "x")), "allowed value 'x' is no int"),
        (column(allowed=()), "allowed is empty"),
        (column(allowed=(None, 1)), "say nullable"),
        (column(pattern="x"), "pattern has no meaning for int"),
        (column(dtype=DType.STRING, pattern="("), "cannot be used"),
        (column(dtype=DType.STRING, pattern="(?=x)x"), "RE2 has no look-around"),
        (column(dtype=DType.STRING, pattern="[a-z]+", allowed=("a", "B")), "'B' does not match"),
        (column(dtype=DType.STRING, allowed=("abc",), max_length=2), "longer than max_length"),
        (column(dtype=DType.STRING, min_length=3, max_length=2), "min_length 3 is above max_length 2"),
        (column(dtype=DType.STRING, min_length=-1), "cannot be negative"),
        (column(max_bad_fraction=1.1), "from 0 to 1"),
        (column(unique=True, personal="seal"), "cannot be unique and kept as 'seal'"),
        (column(required=False), "make it nullable, or required"),
        (column(name="_row_id"), "this name is taken"),
    ],
)
def test_each_contradiction_in_a_column_is_named(spec: ColumnSpec, said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_contract(ContractSpec(columns=(spec,)))

    assert said in str(raised.value)
    assert repr(spec.name) in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"columns": ()}, "no column is declared"),
        ({"columns": (N, N)}, "column 'n' is declared 2 times"),
        ({"unique": (("m",),)}, "'m', which is no column"),
        ({"unique": ((),)}, "a key without columns"),
        ({"rules": (RowRuleSpec(name="r", holds="nn > 1"),)}, "rule 'r': 'nn > 1' names 'nn', which is no column: did you mean 'n'?"),
        ({"rules": (RowRuleSpec(name="r", holds="n >"),)}, "is no SQL expression"),
        ({"rules": (RowRuleSpec(name="r", holds="n + 1"),)}, "a rule must be true or false"),
        ({"rules": (RowRuleSpec(name="r", holds="n > 'x'"),)}, "does not fit the columns' types"),
        ({"rules": (RowRuleSpec(name="r", holds="n > AVG(n)"),)}, "looks at other rows"),
        ({"rules": (RowRuleSpec(name="r", holds="COUNT(*) > n"),)}, "looks at other rows"),
        ({"rules": (RowRuleSpec(name="r", holds="n = MAX(n) OVER (PARTITION BY s)"),)}, "looks at other rows"),
        ({"rules": (RowRuleSpec(name="r", holds="n > (SELECT 1)"),)}, "has a query in it"),
        ({"rules": (RowRuleSpec(name="r", holds="1 = 1"),)}, "names no column"),
        ({"rules": (RowRuleSpec(name="r", holds="n > 1"), RowRuleSpec(name="r", holds="n > 2"))}, "declared twice"),
        ({"rules": (RowRuleSpec(name="r", holds="n > 1", max_bad_fraction=-1),)}, "from 0 to 1"),
        ({"max_bad_fraction": 7}, "from 0 to 1"),
        ({"min_rows": -1}, "cannot be negative"),
        ({"freshness_column": "at"}, "needs both"),
        ({"freshness_column": "att", "max_age": "1h"}, "'att' is no column: did you mean 'at'?"),
        ({"freshness_column": "n", "max_age": "1h"}, "needs date or datetime"),
        ({"freshness_column": "at", "max_age": "soon"}, "max_age"),
    ],
)  # fmt: skip
def test_each_contradiction_of_the_whole_is_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        check_contract(ContractSpec(**{"columns": (N, S, AT), **fields}))

    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("fields", "columns", "said"),
    [
        ({"entity": ("m",)}, (N,), "entity 'm' is no column: did you mean"),
        ({"event_time": "n"}, (N,), "must be date or datetime"),
        ({"subject": "n"}, (column("n", nullable=True),), "may not be nullable"),
        ({"subject": "n"}, (column("n", personal="seal"),), "use pseudonymise"),
        ({}, (N, column("s", DType.STRING, personal="seal")), "names no subject"),
        ({"entity": ("n",)}, (column("n", personal="redact"),), "is a key"),
        ({"event_time": "at"}, (N, column("at", DType.DATETIME, personal="pseudonymise")), "is a key"),
    ],
)
def test_each_contradiction_of_a_dataset_is_named(
    fields: dict[str, Any], columns: tuple[ColumnSpec, ...], said: str
) -> None:
    fields = {"entity": (), **fields}
    spec = DatasetSpec(name="d", source=SourceSpec(url="x"), contract=ContractSpec(columns=columns), **fields)

    if said == "entity 'm' is no column: did you mean":
        said = "entity 'm' is no column"
    with pytest.raises(InvalidInput) as raised:
        check_dataset(spec)

    assert said in str(raised.value)


def test_all_faults_are_told_at_once() -> None:
    spec = ContractSpec(
        columns=(column(minimum=2, maximum=1), column("s", DType.STRING, pattern="(")), min_rows=-1
    )

    assert len(list(contract_faults(spec))) == 3


def test_a_contract_that_fits_together_has_no_fault() -> None:
    spec = DatasetSpec(
        name="d",
        source=SourceSpec(url="x"),
        entity=("n",),
        event_time="at",
        subject="s",
        contract=ContractSpec(
            columns=(
                column("n", minimum=-5, maximum=5, allowed=(-5, 0, 5), unique=True),
                column("s", DType.STRING, pattern="[a-z]+", allowed=("ab", "cd"), min_length=2, max_length=2),
                column("at", DType.DATETIME, minimum="2013-01-01", maximum="2014-01-01T00:00:00Z"),
                column("x", DType.FLOAT, nullable=True, required=False, personal="seal"),
            ),
            rules=(RowRuleSpec(name="r", holds="n > 1 OR x IS NULL AND s <> 'Agg'"),),
            unique=(("n", "s"),),
            freshness_column="at",
            max_age="48h",
        ),
    )

    assert list(dataset_faults(spec)) == []
