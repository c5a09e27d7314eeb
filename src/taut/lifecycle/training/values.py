"""What a training run takes and leaves, as frozen values."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from taut.core.canonical import digest_json
from taut.core.evidence import Check, Scalar
from taut.core.schema import Column, FeatureLookup, ModelSignature
from taut.core.units import parse_duration, parse_size
from taut.lifecycle.training.split import SplitFacts
from taut.ports.jobs import Limits
from taut.ports.tables import TableManifest
from taut.project.manifest import ModelSpec, ResourcesSpec
from taut.project.training import MAX_METRIC_NAME, MAX_METRIC_STEP

PARITY_FILE: Final = "parity.parquet"
_OUTPUT_BYTES = 2 * 2**30


class JoinedFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """A feature set as it was joined into the training table.

    columns: those of the set, under their names in the table. materialisation: the reference of what was joined.
    """

    lookup: FeatureLookup
    columns: tuple[Column, ...]
    materialisation: str

    @property
    def name(self) -> str:
        return self.lookup.feature_set


class TrainingData(msgspec.Struct, frozen=True, kw_only=True):
    """The training table: request columns, features joined point-in-time, label and times, by row id.

    snapshots: dataset -> version, for example {"flights": "flights@3"}.
    """

    table: TableManifest
    event_time: str
    snapshots: dict[str, str]
    features: tuple[JoinedFeatures, ...] = ()

    @property
    def digest(self) -> str:
        """The digest of the very rows and columns: equal data has equal digests."""
        files = [[file.digest, file.rows] for file in self.table.files]
        return digest_json({"schema": self.table.schema, "files": files, "event_time": self.event_time})


class Code(msgspec.Struct, frozen=True, kw_only=True):
    """The builder's code: a bundle in Blobs by digest, the digest of its environment's lock, and who vouches for both.

    statement: the signed statement of `sign_code`, as JSON.
    """

    bundle: str
    lock: str
    statement: str


class RunState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run happened, as far as it can change a result."""

    python: str = ""
    libraries: dict[str, str] = {}  # name -> version
    machine: str = ""  # architecture
    processor: str = ""
    system: str = ""
    threads: int = 0


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    size_bytes: int


class MetricPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A point that the builder's code logged, within the bounds of `TrainContext.log_metric`."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_METRIC_NAME)]
    step: Annotated[int, msgspec.Meta(ge=0, le=MAX_METRIC_STEP)]
    value: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the job says after a training that worked.

    metrics: computed by taut on the held-out rows, through the ONNX model. own_metrics: the builder's. baselines:
    the same metrics of a constant and, for two classes, of the best single input. checks: what the model gate looks at.
    """

    signature: ModelSignature
    split: SplitFacts
    metrics: dict[str, float]
    own_metrics: dict[str, float]
    baselines: dict[str, dict[str, float | str]]
    checks: tuple[Check, ...]
    points: tuple[MetricPoint, ...]
    environment: Environment
    model_kind: str  # for people, for example `Pipeline(ColumnTransformer, HistGradientBoostingClassifier)`

    @property
    def baseline(self) -> dict[str, float]:
        """The metrics of the constant."""
        return {name: float(value) for name, value in self.baselines.get("constant", {}).items()}


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One training run, whole. `report` is there when it is done, `error` when it failed."""

    id: str
    model: str
    state: RunState
    actor: str
    started_at: datetime
    ended_at: datetime | None = None
    spec: ModelSpec
    params: dict[str, Scalar]
    seed: int
    data: TrainingData
    code: Code
    environment: str  # the installation's, for example `development`
    reproduces: str | None = None  # the run that this one repeats
    report: Report | None = None
    artifacts: tuple[Artifact, ...] = ()
    error: str = ""
    error_code: str = ""
    ended_as: str = ""  # how the job ended, a JobEnd
    isolation: tuple[str, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0

    def artifact(self, name: str) -> Artifact | None:
        return next((item for item in self.artifacts if item.name == name), None)

    @property
    def model_digest(self) -> str | None:
        found = self.model_file
        return found.digest if found else None

    @property
    def model_file(self) -> Artifact | None:
        """The model that the run left, None where it left none."""
        return None if self.report is None else self.artifact(self.report.signature.file)


def limits_of(resources: ResourcesSpec) -> Limits:
    """Return what a model's declared resources mean for its job."""
    return Limits(
        cpu=resources.cpu,
        memory_bytes=parse_size(resources.memory),
        timeout_s=parse_duration(resources.timeout).total_seconds(),
        output_bytes=_OUTPUT_BYTES,
    )
