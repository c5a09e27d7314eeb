"""The project that `taut init` writes: small, working, with data of its own that is the same on every machine."""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from taut.core.errors import Conflict, Unavailable

_START: Final = datetime(2026, 1, 5)  # noqa: DTZ001 - written out in UTC below
_HOURS: Final = 24 * 90
_ORDERS: Final = 6_000
_WAREHOUSES: Final = ("north", "south", "west")
_CARRIERS: Final = ("bike", "post", "van")
_SLOW: Final = {"bike": 0.8, "post": 0.3, "van": -0.2}
_SEED: Final = 2026

PROJECT: Final = '''"""Which orders will arrive late? A small working project: change it into your own."""

import polars as pl

import taut

orders = taut.Dataset(
    "orders",
    source=taut.files("data/orders-*.csv"),
    contract=taut.Contract(
        [
            taut.column("order_id", "int", unique=True, minimum=1),
            taut.column("placed_at", "datetime"),
            taut.column("warehouse", "string", allowed=["north", "south", "west"]),
            taut.column("carrier", "string", allowed=["bike", "post", "van"]),
            taut.column("items", "int", minimum=1, maximum=50),
            taut.column("distance_km", "float", minimum=0, maximum=500),
            taut.column("arrived_at", "datetime"),
            taut.column("late", "bool"),
        ],
        rules=[taut.rule("arrives after it was placed", "arrived_at > placed_at")],
        max_bad_fraction=0.02,  # a batch with more bad rows than this is rejected whole
    ),
    entity="order_id",
    event_time="placed_at",
)

backlog = taut.Dataset(
    "backlog",
    source=taut.files("data/backlog.csv"),
    contract=taut.Contract(
        [
            taut.column("warehouse", "string"),
            taut.column("hour", "datetime"),
            taut.column("waiting", "int", minimum=0),
        ],
        unique=[["warehouse", "hour"]],
    ),
    entity="warehouse",
    event_time="hour",
)


@taut.features("load", entity="warehouse", event_time="hour", sources=[backlog], online=True)
def load(backlog: pl.LazyFrame) -> pl.LazyFrame:
    """How much work lay in a warehouse. (With live data, add max_age="6h": older values are then not used.)"""
    return backlog.select("warehouse", "hour", waiting=pl.col("waiting").cast(pl.Float64))


@taut.model(
    "late",
    dataset=orders,
    features=[load],
    request=["warehouse", "carrier", "items", "distance_km"],  # what a caller knows; the rest is looked up
    label="late",
    label_at="arrived_at",
    split=taut.by_time(test="20d", gap="1d"),
    gates=[taut.metric("auc", minimum=0.65), taut.no_regression("auc", tolerance=0.02)],
    approval=taut.approval(1),
    resources=taut.Resources(cpu=1, memory="2GiB", timeout="5m"),
    params={"trees": 60},
)
def train(ctx: taut.TrainContext) -> taut.Trained:
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    words, numbers = ["warehouse", "carrier"], ["items", "distance_km", "waiting"]
    model = make_pipeline(
        make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), words),
            ("passthrough", numbers),
        ),
        HistGradientBoostingClassifier(max_iter=int(ctx.params["trees"]), random_state=ctx.seed),
    )
    model.fit(ctx.train.select(words + numbers), ctx.train["late"])
    return taut.Trained(model, inputs=words + numbers, output="probability")


late = taut.Endpoint("late", model=train, release=taut.Direct(), slo=taut.SLO(latency_p95_ms=20))
'''

README: Final = """# Which orders will arrive late?

A small working taut project, with data of its own. From this folder:

```sh
taut plan                      # what would change
taut apply                     # make it the project
taut data ingest orders        # judged by the contract; bad rows are set aside
taut data ingest backlog
taut data quarantine orders    # which, and why
taut train late                # trained, measured, judged
taut model approve late@1
taut up                        # in a second terminal: the platform
taut release start late 1
taut predict late --data '{"warehouse": "north", "carrier": "bike", "items": 3, "distance_km": 12.5}'
taut why late@1                # from the model back to the files
```

`project.py` says everything: the data and what it promises, the features, the model and its gates, the endpoint. The
state lies in `.taut`; `data/` holds the sample data.
"""

_IGNORE: Final = ".taut/\n__pycache__/\n"


def write_project(folder: Path) -> list[str]:
    """Write the project into `folder` and return the names of its files.

    Raises Conflict when it is not empty, Unavailable when it cannot be written; nothing is left of it then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is not empty: name a folder that is empty or not there yet")
    orders, backlog = sample_data()
    half = len(orders) // 2
    files = {
        "README.md": README,
        "project.py": PROJECT,
        ".gitignore": _IGNORE,
        "data/backlog.csv": _csv(("warehouse", "hour", "waiting"), backlog),
        "data/orders-1.csv": _csv(_COLUMNS, orders[:half]),
        "data/orders-2.csv": _csv(_COLUMNS, orders[half:]),
    }
    try:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        for name in files:
            with suppress(OSError):
                (folder / name).unlink()
        with suppress(OSError):
            (folder / "data").rmdir()
        raise Unavailable(
            f"the project cannot be written to {folder} ({error.strerror}): free some space, or choose another folder"
        ) from error
    return sorted(files)


_COLUMNS: Final = (
    "order_id", "placed_at", "warehouse", "carrier", "items", "distance_km", "arrived_at", "late",
)  # fmt: skip

Row = tuple[object, ...]


def sample_data() -> tuple[list[Row], list[Row]]:
    """Return orders, with some dirt in them, and the backlog of each warehouse by the hour."""
    chance = random.Random(_SEED)  # noqa: S311 - sample data, the same everywhere
    waiting = {place: list(_waiting(chance)) for place in _WAREHOUSES}
    backlog: list[Row] = [
        (place, _time(_START + timedelta(hours=hour)), waiting[place][hour])
        for hour in range(_HOURS)
        for place in _WAREHOUSES
    ]
    orders = [_order(chance, number, waiting) for number in range(1, _ORDERS + 1)]
    return orders, backlog


def _waiting(chance: random.Random) -> Iterator[int]:
    level = 40.0
    for hour in range(_HOURS):
        level += (40 + 25 * math.sin(hour / 24 * math.tau) - level) * 0.2 + chance.gauss(0, 8)
        level = max(level, 0.0)
        yield round(level)


def _order(chance: random.Random, number: int, waiting: dict[str, list[int]]) -> Row:
    hour = (number - 1) * (_HOURS - 1) / _ORDERS
    placed = _START + timedelta(hours=hour, minutes=1)
    place, carrier = chance.choice(_WAREHOUSES), chance.choice(_CARRIERS)
    items, distance = chance.randint(1, 12), round(chance.expovariate(1 / 25), 1)
    pressure = (waiting[place][int(hour)] - 40) / 15 + distance / 30 + _SLOW[carrier] + items / 20 - 1.6
    late = chance.random() < 1 / (1 + math.exp(-1.5 * pressure))
    arrived = placed + timedelta(hours=2 + distance / 20 + (6 if late else 0) + chance.random())
    if number % 701 == 0:
        items = -items  # dirt, as real data has it: the contract sets these rows aside
    if number % 907 == 0:
        carrier = "drone"
    if number % 1103 == 0:
        arrived = placed - timedelta(hours=1)
    return number, _time(placed), place, carrier, items, distance, _time(arrived), str(late).lower()


def _time(time: datetime) -> str:
    return time.isoformat(timespec="seconds") + "Z"


def _csv(columns: tuple[str, ...], rows: list[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()
