"""Bad records in JSON lines and Parquet, which have faults that CSV cannot: each is set aside or rejected with its rule."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from installation import Installation

GOOD = 400
FIRST = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return released_template.copy_to(tmp_path_factory.mktemp("bad-formats") / "shop")


def order(number: int) -> dict[str, Any]:
    placed = FIRST + timedelta(hours=number % 48)
    return {
        "order_id": 900_000 + number, "placed_at": placed.isoformat(), "warehouse": "north", "carrier": "bike",
        "items": 3, "distance_km": 12.5, "arrived_at": (placed + timedelta(days=1)).isoformat(), "late": False,
    }  # fmt: skip


def with_(number: int, **changes: Any) -> str:
    return json.dumps({**order(number), **changes})


LINES: dict[str, tuple[str, str]] = {
    # name: (a line, the rule that it must break)
    "no json": ('{"order_id": 3,', "_record"),
    "a list": ("[1, 2, 3]", "_record"),
    "a number": ("17", "_record"),
    "nested without end": ('{"items": ' + "[" * 50_000 + "]" * 50_000 + "}", "_record"),
    "no utf-8": (with_(1, carrier="bike").replace("bike", "b\udcffke"), "_record"),
    "not a number": (with_(2).replace("12.5", "NaN"), ""),
    "infinite": (with_(3).replace("12.5", "Infinity"), ""),
    "beyond a float": (with_(4).replace("12.5", "1e999"), ""),
    "beyond 64 bits": (with_(5, order_id=2**70), "order_id"),
    "half an item": (with_(6, items=2.5), "items"),
    "a text for a number": (with_(7, items="many"), "items"),
    "a number for a text": (with_(8, warehouse=3), "warehouse"),
    "a list for a word": (with_(9, warehouse=["north"]), "warehouse"),
    "an object for a number": (with_(10, items={"a": 1}), "items"),
    "a word for a truth value": (with_(11, late="perhaps"), "late"),
    "a column gone": (json.dumps({k: v for k, v in order(12).items() if k != "items"}), "items"),
    "30 February": (with_(13, placed_at="2026-02-30T00:00:00Z"), "placed_at"),
    "a year of five digits": (with_(14, placed_at="29426-01-01T00:00:00Z"), "placed_at"),
    "5 MB": (with_(15, warehouse="x" * 5_000_000), ""),
}


def test_bad_json_lines_are_set_aside_each_with_its_rule_and_the_good_ones_are_kept(
    shop: Installation, tmp_path: Path
) -> None:
    before = shop("data", "show", "orders")["rows"]
    lines = [json.dumps(order(1_000 + number)) for number in range(GOOD * 5)]
    for at, (line, _) in enumerate(LINES.values()):
        lines.insert(at * 100 + 50, line)
    path = tmp_path / "orders-x.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")

    answer = shop("data", "ingest", "orders", "--from", str(path))

    assert (answer["rows"], answer["quarantined"]) == (GOOD * 5, len(LINES)), answer["rules"]
    found = sorted(
        (r for r in shop("data", "quarantine", "orders", "--limit", "1000")["records"] if r["source"].endswith("jsonl")),
        key=lambda record: record["row"],
    )  # fmt: skip
    for (name, (_, rule)), record in zip(LINES.items(), found, strict=True):
        assert any(rule in broken for broken in record["rules"]), (name, record["rules"])
    assert shop("data", "show", "orders")["rows"] == before + GOOD * 5


def frame(first: int) -> pl.DataFrame:
    orders = pl.DataFrame([order(first + number) for number in range(GOOD)])
    return orders.with_columns(pl.col("placed_at", "arrived_at").str.to_datetime(time_zone="UTC"))


CELLS: dict[str, tuple[str, Any, str]] = {
    # name: (column, value, the rule that it must break)
    "not a number": ("distance_km", math.nan, "distance_km"),
    "infinite": ("distance_km", math.inf, "distance_km"),
    "a null": ("items", None, "items"),
    "before it was placed": ("arrived_at", datetime(1, 1, 1, tzinfo=UTC), "arrives after it was placed"),
    "a word of another language": ("carrier", "Fahrrad", "carrier"),
}


def test_bad_cells_of_parquet_are_set_aside_each_with_its_rule(shop: Installation, tmp_path: Path) -> None:
    rows = frame(10_000).to_dicts()
    for at, (column, value, _) in enumerate(CELLS.values()):
        rows[at * 50 + 7][column] = value
    path = tmp_path / "orders-x.parquet"
    pl.DataFrame(rows, schema=frame(0).schema).write_parquet(path)

    answer = shop("data", "ingest", "orders", "--from", str(path))

    assert (answer["rows"], answer["quarantined"]) == (GOOD - len(CELLS), len(CELLS)), answer["rules"]
    found = sorted(
        (r for r in shop("data", "quarantine", "orders", "--limit", "1000")["records"] if r["source"].endswith("parquet")),
        key=lambda record: record["row"],
    )  # fmt: skip
    for (name, (_, _, rule)), record in zip(CELLS.items(), found, strict=True):
        assert any(rule in broken for broken in record["rules"]), (name, record["rules"])


COLUMNS: dict[str, Any] = {
    "numbers as text": lambda f: f.with_columns(pl.lit("many").alias("items")),
    "words as bytes": lambda f: f.with_columns(pl.lit(b"\xff\xfe").alias("warehouse")),
    "words as lists": lambda f: f.with_columns(pl.lit(["north"]).alias("warehouse")),
    "numbers as objects": lambda f: f.with_columns(pl.struct("items").alias("items")),
    "times as numbers": lambda f: f.with_columns(pl.lit(3.5).alias("placed_at")),
    "a column of nothing": lambda f: f.with_columns(pl.lit(None).alias("items")),
    "a column renamed": lambda f: f.rename({"items": "itms"}),
    "no rows": lambda f: f.clear(),
}


@pytest.mark.parametrize("fault", COLUMNS)
def test_a_parquet_file_with_a_column_that_is_none_of_the_contracts_is_rejected_whole(
    shop: Installation, tmp_path: Path, fault: str
) -> None:
    before = shop("data", "show", "orders")["snapshot"]
    path = tmp_path / "orders-y.parquet"
    COLUMNS[fault](frame(20_000)).write_parquet(path)

    told = shop.told("data", "ingest", "orders", "--from", str(path))

    assert told.code == 10, told
    assert told.document["rejected"] is True
    assert len(told.document["reasons"]) >= 1
    assert shop("data", "show", "orders")["snapshot"] == before


def test_a_parquet_file_whose_end_is_damaged_is_rejected_whole(shop: Installation, tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    frame(30_000).write_parquet(whole)
    data = whole.read_bytes()
    before = shop("data", "show", "orders")["snapshot"]
    for name, damaged in {
        "cut": data[:-100],
        "magic": b"PAR1PAR1",
        "footer": data[:-8] + b"\xff" * 8,
    }.items():
        path = tmp_path / f"orders-{name}.parquet"
        path.write_bytes(damaged)

        told = shop.told("data", "ingest", "orders", "--from", str(path))

        assert told.code == 10, (name, told)
        assert told.document["rejected"] is True
    assert shop("data", "show", "orders")["snapshot"] == before
    assert shop("ledger", "verify")["ok"] is True
