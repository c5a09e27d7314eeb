"""A training room on real adapters, and a small table of flights to train on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.jobs import ProcessJobs
from taut.adapters.keys.file import FileKeys
from taut.adapters.tables.parquet import ParquetTables
from taut.core.schema import Column, DType, FeatureLookup, Schema
from taut.lifecycle.training import Code, JoinedFeatures, Training, TrainingData, metadata, sign_code
from taut.ports.jobs import Jobs
from taut.ports.records import Records
from taut.project.bundle import make_bundle
from taut.project.manifest import FunctionRef, ModelSpec, ResourcesSpec, SplitSpec
from taut.testing.jobs import InlineJobs
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.ledger import Ledger
from taut.trust.ledger.tables import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage.tables import metadata as lineage_metadata

LOCK = "sha256:" + "1" * 64
START = datetime(2013, 1, 1, tzinfo=UTC)

CODE = """
import polars as pl
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import taut

WORDS, NUMBERS = ["carrier"], ["distance", "hour", "wind"]


def pipeline(ctx):
    model = make_pipeline(
        make_column_transformer(
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), WORDS), ("passthrough", NUMBERS)
        ),
        HistGradientBoostingClassifier(max_iter=int(ctx.params["trees"]), random_state=ctx.seed),
    )
    return model.fit(ctx.train.select(WORDS + NUMBERS), ctx.train["late"])


def train(ctx):
    print("training", ctx.train.shape, ctx.snapshots)
    for step in range(3):
        ctx.log_metric("loss", 1 / (step + 1))
    return taut.Trained(pipeline(ctx), inputs=WORDS + NUMBERS)
"""


class Room(NamedTuple):
    training: Training
    spec: ModelSpec
    data: TrainingData
    code: Callable[[str], Code]
    records: MemoryRecords
    ledger: Ledger
    lineage: Lineage
    tables: ParquetTables
    keys: FileKeys
    over: Callable[[Records], Training]  # the same training over other records


def flights(rows: int = 3000) -> pl.DataFrame:
    random = np.random.default_rng(3)
    carrier = random.choice(["UA", "AA", "B6", None], rows, p=[0.4, 0.3, 0.25, 0.05])
    wind = random.gamma(2.0, 5.0, rows)
    hour = random.integers(5, 23, rows)
    score = (wind - 10) / 8 + (hour - 14) / 6 + (carrier == "B6") * 0.8 + random.normal(0, 1.5, rows)
    at = [START + timedelta(minutes=30 * number) for number in range(rows)]
    return pl.DataFrame(
        {
            "at": at,
            "arrived_at": [time + timedelta(hours=3) for time in at],
            "carrier": carrier.tolist(),
            "distance": random.uniform(100, 2500, rows),
            "hour": hour,
            "wind": pl.Series(wind).set(pl.Series(random.random(rows) < 0.1), None),
            "late": score > 1.0,
            "arrival_delay": score * 10,
        },
        schema_overrides={
            "at": pl.Datetime("us", "UTC"),
            "arrived_at": pl.Datetime("us", "UTC"),
            "carrier": pl.String,
        },
    )


SCHEMA = Schema(
    (
        Column("at", DType.DATETIME),
        Column("arrived_at", DType.DATETIME),
        Column("carrier", DType.STRING, nullable=True),
        Column("distance", DType.FLOAT),
        Column("hour", DType.INT),
        Column("wind", DType.FLOAT, nullable=True),
        Column("late", DType.BOOL),
        Column("arrival_delay", DType.FLOAT),
    )
)
LOOKUP = FeatureLookup(feature_set="sky", entity=("origin",), keys=("carrier",))


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    """The room with real jobs: a few seconds a run."""
    with open_room(tmp_path, ProcessJobs(tmp_path / "jobs")) as made:
        yield made


@pytest.fixture
def quick_room(tmp_path: Path) -> Iterator[Room]:
    """The room with jobs that run in this process."""
    with open_room(tmp_path, InlineJobs()) as made:
        yield made


@contextmanager
def open_room(tmp_path: Path, jobs: Jobs) -> Iterator[Room]:
    records = memory_records(metadata, ledger_metadata, lineage_metadata)
    clock, ids = ManualClock(), SequenceIds()
    keys = FileKeys(tmp_path / "keys", random=SeededRandom())
    blobs = LocalBlobs(tmp_path / "blobs")
    tables = ParquetTables(blobs)
    ledger = Ledger(records, keys, clock, ids, origin="taut.test/training")
    lineage = Lineage(clock)

    def over(others: Records) -> Training:
        return Training(
            records=others, blobs=blobs, tables=tables, ledger=ledger, lineage=lineage,
            jobs=jobs, keys=keys, clock=clock, ids=ids,
        )  # fmt: skip

    training = over(records)
    table = tables.write([flights()], schema=SCHEMA, first_row_id=0)
    data = TrainingData(
        table=table,
        event_time="at",
        snapshots={"flights": "flights@3"},
        features=(
            JoinedFeatures(
                lookup=LOOKUP, columns=(Column("wind", DType.FLOAT, nullable=True),), materialisation="sky-7"
            ),
        ),
    )
    spec = ModelSpec(
        name="delay", dataset="flights", function=FunctionRef("project", "train"), label="late",
        label_at="arrived_at", request=("carrier", "distance", "hour"), features=("sky",),
        split=SplitSpec(test="10d", gap="1d"), params={"trees": 10},
        resources=ResourcesSpec(cpu=1, memory="2GiB", timeout="1m"), seed=11,
    )  # fmt: skip

    def code(text: str) -> Code:
        folder = tmp_path / f"project-{abs(hash(text))}"
        folder.mkdir(exist_ok=True)
        (folder / "project.py").write_text(text)
        return sign_code(keys, bundle=blobs.put(make_bundle(folder)), lock=LOCK, actor="owner")

    yield Room(training, spec, data, code, records, ledger, lineage, tables, keys, over)
    tables.close()
    records.close()
