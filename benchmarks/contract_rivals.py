"""One contract, checked by taut and by others: 1,000,000 rows × 12 columns, 5 rules, bad rows set aside with reasons.

Runs in a process of its own, in whatever environment has the rivals: `python -m benchmarks.contract_rivals` prints
JSON, seconds by library, measured alternately. Each must return the good rows, the bad rows and, for each bad row,
which rules it breaks (or, where a library cannot say that, the counts by rule).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl

ROWS = 1_000_000
CODES = ("new", "paid", "sent", "back")


def table(rows: int = ROWS, *, seed: int = 7) -> pl.DataFrame:
    """Orders, about 1 percent of them broken by one rule or another."""
    random = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "id": np.arange(rows),
            "amount": random.uniform(0, 1000, rows).round(2),
            "quantity": random.integers(1, 50, rows),
            "status": random.choice(CODES, rows),
            "code": [f"{'ABCDEFGH'[i % 8]}{'QRSTUVWX'[i % 7]}-{i % 10_000:04d}" for i in range(rows)],
            "first_day": random.integers(0, 300, rows),
            "days": random.integers(0, 60, rows),
            **{f"x{i}": random.normal(size=rows).round(4) for i in range(4)},
        }
    ).with_columns(last_day=pl.col("first_day") + pl.col("days"))
    hit = pl.Series(random.integers(0, 500, rows))
    return frame.with_columns(
        amount=pl.when(hit == 0).then(-1.0).otherwise("amount"),
        quantity=pl.when(hit == 1).then(None).otherwise("quantity"),
        status=pl.when(hit == 2).then(pl.lit("lost")).otherwise("status"),
        code=pl.when(hit == 3).then(pl.lit("??")).otherwise("code"),
        last_day=pl.when(hit == 4).then(pl.lit(-1, dtype=pl.Int64)).otherwise("last_day"),
    )


def taut_check() -> Callable[[pl.DataFrame], int]:
    from taut.core.schema import DType
    from taut.lifecycle.data import CompiledContract
    from taut.project.manifest import ColumnSpec, ContractSpec, RowRuleSpec

    def column(name: str, dtype: DType, **rules: Any) -> ColumnSpec:
        return ColumnSpec(name=name, dtype=dtype, **{"nullable": True, **rules})

    contract = CompiledContract(
        ContractSpec(
            columns=(
                column("id", DType.INT),
                column("amount", DType.FLOAT, minimum=0.0, maximum=1000.0),
                column("quantity", DType.INT, nullable=False),
                column("status", DType.STRING, allowed=CODES),
                column("code", DType.STRING, pattern="[A-Z]{2}-[0-9]{4}"),
                column("first_day", DType.INT),
                column("days", DType.INT),
                *(column(f"x{i}", DType.FLOAT) for i in range(4)),
                column("last_day", DType.INT),
            ),
            rules=(RowRuleSpec(name="order", holds="last_day >= first_day"),),
        )
    )

    def check(frame: pl.DataFrame) -> int:
        checked = contract.check(frame)
        good, bad = checked.split(frame)
        reasons = checked.reasons()
        assert len(reasons) == bad.height
        assert good.height + bad.height == frame.height
        return bad.height

    return check


def dataframely_check() -> Callable[[pl.DataFrame], int]:
    import dataframely as dy

    class Orders(dy.Schema):  # type: ignore[misc,unused-ignore]  # of a library that this environment may lack
        id = dy.Int64(nullable=True)
        amount = dy.Float64(nullable=True, min=0.0, max=1000.0)
        quantity = dy.Int64(nullable=False)
        status = dy.String(nullable=True, check=lambda c: c.is_in(CODES))
        code = dy.String(nullable=True, regex=r"^[A-Z]{2}-[0-9]{4}$")
        first_day = dy.Int64(nullable=True)
        days = dy.Int64(nullable=True)
        x0 = dy.Float64(nullable=True)
        x1 = dy.Float64(nullable=True)
        x2 = dy.Float64(nullable=True)
        x3 = dy.Float64(nullable=True)
        last_day = dy.Int64(nullable=True)

        @dy.rule()  # type: ignore[misc,untyped-decorator,unused-ignore]  # as above
        def order(cls) -> pl.Expr:  # noqa: N805 - the library's own form
            return pl.col("last_day") >= pl.col("first_day")

    def check(frame: pl.DataFrame) -> int:
        good, failure = Orders.filter(frame)
        details = failure.details()
        assert good.height + details.height == frame.height
        return int(failure.invalid().height)

    return check


def pandera_check() -> Callable[[pl.DataFrame], int]:
    import pandera.polars as pa
    from pandera.errors import SchemaErrors

    plain = {name: pa.Column(nullable=True) for name in ("id", "first_day", "days", "x0", "x1", "x2", "x3")}
    schema = pa.DataFrameSchema(
        {
            **plain,
            "amount": pa.Column(float, pa.Check.in_range(0, 1000), nullable=True),
            "quantity": pa.Column(int, nullable=False),
            "status": pa.Column(str, pa.Check.isin(list(CODES)), nullable=True),
            "code": pa.Column(str, pa.Check.str_matches(r"^[A-Z]{2}-[0-9]{4}$"), nullable=True),
            "last_day": pa.Column(int, nullable=True),
        },
        checks=pa.Check(lambda data: data.lazyframe.select(pl.col("last_day") >= pl.col("first_day"))),
    )

    def check(frame: pl.DataFrame) -> int:
        try:
            schema.validate(frame, lazy=True)
        except SchemaErrors as errors:
            rows = errors.failure_cases.select(pl.col("index").cast(pl.Int64), "column", "check")
            broken = frame.with_row_index().with_columns(pl.col("index").cast(pl.Int64))
            bad = broken.join(rows.select("index").unique(), on="index", how="semi")
            good = broken.join(rows.select("index").unique(), on="index", how="anti")
            assert good.height + bad.height == frame.height
            return bad.height
        raise AssertionError("nothing was found")

    return check


def pointblank_check() -> Callable[[pl.DataFrame], int]:
    import pointblank as pb

    def check(frame: pl.DataFrame) -> int:
        done = (
            pb.Validate(frame)
            .col_vals_between("amount", 0, 1000)
            .col_vals_not_null("quantity")
            .col_vals_in_set("status", list(CODES))
            .col_vals_regex("code", r"^[A-Z]{2}-[0-9]{4}$")
            .col_vals_expr(pl.col("last_day") >= pl.col("first_day"))
            .interrogate()
        )
        good, bad = done.get_sundered_data(type="pass"), done.get_sundered_data(type="fail")
        assert len(good) + len(bad) == frame.height
        return len(bad)

    return check


def great_expectations_check(frame: pl.DataFrame) -> Callable[[pl.DataFrame], int]:
    import great_expectations as gx
    import great_expectations.expectations as gxe
    import pandas as pd

    pandas = pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})
    context = gx.get_context(mode="ephemeral")
    batches = (
        context.data_sources.add_pandas("memory")
        .add_dataframe_asset("orders")
        .add_batch_definition_whole_dataframe("all")
    )
    suite = context.suites.add(
        gx.ExpectationSuite(
            name="orders",
            expectations=[
                gxe.ExpectColumnValuesToBeBetween(column="amount", min_value=0, max_value=1000),
                gxe.ExpectColumnValuesToNotBeNull(column="quantity"),
                gxe.ExpectColumnValuesToBeInSet(column="status", value_set=list(CODES)),
                gxe.ExpectColumnValuesToMatchRegex(column="code", regex=r"^[A-Z]{2}-[0-9]{4}$"),
                gxe.ExpectColumnPairValuesAToBeGreaterThanB(
                    column_A="last_day", column_B="first_day", or_equal=True
                ),
            ],
        )
    )  # fmt: skip
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name="orders", data=batches, suite=suite)
    )

    def check(_: pl.DataFrame) -> int:
        result = definition.run(batch_parameters={"dataframe": pandas}, result_format="COMPLETE")
        found: set[int] = set()
        for one in result.results:
            found.update(one.result.get("unexpected_index_list") or [])
        bad = pandas.index.isin(list(found))
        assert len(pandas[~bad]) + len(pandas[bad]) == len(pandas)
        return int(bad.sum())

    return check


def measure(rounds: int) -> dict[str, Any]:
    frame = table()
    makers: dict[str, Callable[[], Callable[[pl.DataFrame], int]]] = {
        "taut": taut_check,
        "dataframely": dataframely_check,
        "pandera": pandera_check,
        "pointblank": pointblank_check,
        "great_expectations": lambda: great_expectations_check(frame),
    }
    checks: dict[str, Callable[[pl.DataFrame], int]] = {}
    missing: dict[str, str] = {}
    for name, make in makers.items():
        try:
            checks[name] = make()
        except ImportError as error:
            missing[name] = str(error)
    seconds: dict[str, list[float]] = {name: [] for name in checks}
    bad = {name: check(frame) for name, check in checks.items()}  # warm, and the same answer from all
    for _ in range(rounds):
        for name, check in checks.items():
            start = time.perf_counter()
            check(frame)
            seconds[name].append(time.perf_counter() - start)
    return {"seconds": seconds, "bad": bad, "missing": missing}


if __name__ == "__main__":
    json.dump(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7), sys.stdout)
