"""A registry on real adapters, and candidates to put into it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from taut.adapters.blobs.local import LocalBlobs
from taut.adapters.keys.file import FileKeys
from taut.core.evidence import Check, Outcome
from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.core.scores import classification_scores
from taut.lifecycle.registry import Candidate, File, GateInputs, Registry, metadata
from taut.ports.tables import ROW_ID
from taut.project.manifest import GateSpec
from taut.serving.runtime import load, score_rows
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SeededRandom, SequenceIds
from taut.trust.identity import Principal
from taut.trust.ledger import Ledger
from taut.trust.ledger.tables import metadata as ledger_metadata
from taut.trust.lineage import Lineage
from taut.trust.lineage.tables import metadata as lineage_metadata

ANN = Principal(id="ann", kind="human", roles=("builder", "approver"))
BEN = Principal(id="ben", kind="human", roles=("approver",))
CLEO = Principal(id="cleo", kind="human", roles=("admin",))
DAN = Principal(id="dan", kind="human", roles=("builder",))

SIGNATURE = ModelSignature(
    request=(Column("hour", DType.INT), Column("wind", DType.FLOAT, nullable=True)),
    inputs=(
        ModelInput(column=Column("wind", DType.FLOAT, nullable=True)),
        ModelInput(column=Column("hour", DType.INT)),
    ),
    output="probability",
    classes=(False, True),
    tensor="matrix",
)


class House(NamedTuple):
    registry: Registry
    blobs: LocalBlobs
    records: MemoryRecords
    ledger: Ledger
    lineage: Lineage
    keys: FileKeys
    folder: Path

    def blob(self, digest: str) -> Path:
        with self.blobs.local(digest) as path:
            return Path(path)


def rows(count: int = 400, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    wind, hour = random.uniform(0, 40, count), random.integers(0, 24, count)
    late = wind / 40 + hour / 24 + random.normal(0, 0.4, count) > 1
    absent = pl.Series(random.random(count) < 0.1)
    return pl.DataFrame(
        {
            ROW_ID: np.arange(count, dtype=np.uint64),
            "wind": pl.Series(wind).set(absent, None),
            "hour": hour,
            "late": late,
        }
    )


def fitted(*, trees: int = 20, flip: bool = False) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = rows(2000, seed=1)
    label = frame["late"].to_numpy()
    model = HistGradientBoostingClassifier(max_iter=trees, random_state=0)
    return model.fit(matrix(frame), ~label if flip else label)


def matrix(frame: pl.DataFrame) -> npt.NDArray[Any]:
    return frame.select(pl.col("wind").fill_null(float("nan")), pl.col("hour").cast(pl.Float64)).to_numpy()


def as_onnx(model: Any) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # skl2onnx hands numpy scalars to protobuf, which deprecates them
        proto = convert_sklearn(
            model, "model", [("input", FloatTensorType([None, 2]))], options={"zipmap": False},
            target_opset={"": 18, "ai.onnx.ml": 3},
        )  # fmt: skip
    return bytes(proto.SerializeToString())


def score(model: bytes, signature: ModelSignature, frame: pl.DataFrame) -> npt.NDArray[Any]:
    """Score through the real runtime, as the workflow does."""
    outputs = score_rows(load(model, signature), frame.to_dicts())
    return np.asarray(outputs.probabilities or outputs.values)


def gate_inputs(model: Any, **changes: Any) -> GateInputs:
    holdout = rows()
    said = model.predict_proba(matrix(holdout))
    parity = holdout.drop("late").with_columns(p0=pl.Series(said[:, 0]), p1=pl.Series(said[:, 1]))
    return GateInputs(**{"score": score, "holdout": holdout, "parity": parity, **changes})


def candidate(
    house: House, model: Any, *, run: str = "run_1", data: bytes | None = None, **changes: Any
) -> Candidate:
    data = as_onnx(model) if data is None else data
    holdout = rows()
    truth = holdout["late"].cast(pl.Int64).to_numpy()
    share = float(truth.mean())
    constant = classification_scores(truth, np.tile([1 - share, share], (len(truth), 1)))
    passed = tuple(
        Check(name=name, outcome=Outcome.PASSED) for name in ("leakage", "own_metrics", "conversion")
    )
    values: dict[str, Any] = {
        "model": "delay", "run": run, "author": "ann", "signature": SIGNATURE, "label": "late",
        "files": {"model.onnx": File(digest=house.blobs.put(data), size_bytes=len(data))},
        "metrics": classification_scores(truth, model.predict_proba(matrix(holdout))) if model else {},
        "baselines": {"constant": constant}, "snapshots": {"flights": "flights@3"},
        "bundle": "sha256:" + "b" * 64, "lock": "sha256:" + "c" * 64, "data": "sha256:" + "d" * 64, "seed": 0,
        "rules": (GateSpec(kind="metric", metric="auc", minimum=0.65),), "approvals": 1, "checks": passed,
    }  # fmt: skip
    return Candidate(**{**values, **changes})


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    records = memory_records(metadata, ledger_metadata, lineage_metadata)
    clock, ids = ManualClock(), SequenceIds()
    keys = FileKeys(tmp_path / "keys", random=SeededRandom())
    blobs = LocalBlobs(tmp_path / "blobs")
    ledger = Ledger(records, keys, clock, ids, origin="taut.test/registry")
    lineage = Lineage(clock)
    registry = Registry(
        records=records, blobs=blobs, keys=keys, ledger=ledger, lineage=lineage, clock=clock, ids=ids
    )
    yield House(registry, blobs, records, ledger, lineage, keys, tmp_path)
    records.close()


@pytest.fixture(scope="session")
def model() -> Any:
    return fitted()
