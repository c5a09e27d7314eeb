"""The manifest: a project file once loaded, as pure data.

The project file runs in the command's process and becomes a Manifest and a signed bundle of its code; control
reads only the manifest. Field names are those of the builder's own declarations (INTERFACE.md).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from taut.core.canonical import digest_json
from taut.core.evidence import Scalar
from taut.core.graphs import Node
from taut.core.schema import DType
from taut.project.comparing import ExperimentSpec
from taut.project.release_specs import FreezeSpec as FreezeSpec
from taut.project.release_specs import LimitSpec as LimitSpec
from taut.project.release_specs import ShadowSpec as ShadowSpec
from taut.project.release_specs import StrategySpec as StrategySpec
from taut.project.responses import DrillSpec, PlaybookSpec
from taut.project.responses import Severity as Severity

PersonalHandling = Literal["seal", "redact", "tokenise", "pseudonymise", "keep"]
GateKind = Literal[
    "metric", "no_regression", "parity", "slices", "fairness", "calibrated", "robust", "attacked",
    "simpler", "clean_labels", "memorised", "stable", "backtested", "replayed", "reproduced", "no_costlier",
]  # fmt: skip
"""What a rule of the model gate is about."""
Classification = Literal["public", "internal", "confidential", "restricted"]
"""How far data may go, from the widest to the narrowest."""


class ColumnSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one column of a dataset promises. Bounds are inclusive; None means unbounded."""

    name: str
    dtype: DType
    nullable: bool = False
    minimum: Scalar = None
    maximum: Scalar = None
    allowed: tuple[Scalar, ...] | None = None
    pattern: str | None = None  # RE2 syntax, must match the whole value
    min_length: int | None = None
    max_length: int | None = None
    unique: bool = False
    required: bool = True  # the column must be present in every file
    personal: PersonalHandling | None = None  # how a personal field is stored
    max_bad_fraction: float | None = None  # reject the batch when this column's rules exceed it
    description: str = ""


class RowRuleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule over one row. `holds` is an SQL expression over columns; null counts as broken."""

    name: str
    holds: str
    max_bad_fraction: float | None = None
    description: str = ""


class ContractSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a dataset promises. A record that breaks a rule is quarantined; a batch beyond a threshold is rejected whole."""

    columns: tuple[ColumnSpec, ...]
    rules: tuple[RowRuleSpec, ...] = ()
    unique: tuple[tuple[str, ...], ...] = ()  # keys, each over one or more columns, over the whole dataset
    extra_columns: Literal["reject", "drop"] = "reject"
    null_values: tuple[str, ...] = ("", "NA", "NaN", "null")  # how text formats spell null
    max_bad_fraction: float = 0.05  # of a batch's rows, over all rules together
    min_rows: int = 1
    freshness_column: str | None = None
    max_age: str | None = None  # of the newest freshness_column, for example "48h"
    pii: Literal["reject", "redact", "keep"] = "reject"  # structured PII found where no column declares it
    version: str = "1"
    description: str = ""


class SourceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where records come from: a path, glob or URL of files, relative to the project's folder."""

    url: str
    format: Literal["auto", "csv", "jsonl", "parquet"] = "auto"
    encoding: str = "utf-8"
    separator: str = ","


class DatasetSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    source: SourceSpec
    contract: ContractSpec
    entity: tuple[str, ...] = ()
    event_time: str | None = None
    subject: str | None = None  # the column that names the person whom a row is about
    classification: Classification | None = None  # None: confidential with personal data, internal without
    owner: str = ""  # who answers for it
    purpose: tuple[str, ...] = ()  # what it may be used for; empty says nothing
    description: str = ""


class FunctionRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function of the bundle, `module:qualname`."""

    module: str
    qualname: str


class FeaturesSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A feature set: one definition for training (point-in-time join) and serving (online lookup)."""

    name: str
    entity: tuple[str, ...]
    event_time: str
    sources: tuple[str, ...]  # datasets, in the order of the function's arguments
    function: FunctionRef
    max_age: str | None = None
    online: bool = False
    description: str = ""


class SplitSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """By time: the last `test` is held out, `gap` before it is dropped; rows whose label was not yet known at the
    split are embargoed from training. skip: so long at the end is left out altogether, to look at an earlier time.
    """

    kind: Literal["by_time"] = "by_time"
    test: str = "30d"
    gap: str = "0s"
    skip: str = "0s"


class GateSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule of the model gate.

    metric: `metric` on the holdout must be >= minimum and <= maximum. no_regression: not worse than the live
    version's by more than `tolerance`, both scored on the candidate's holdout. parity: predictions through the real
    runtime agree with training's within `tolerance`. The others are those of `taut.project.gates`, each examined in a job.
    columns: what rows are grouped by. settings: the numbers of a kind, by the names of its arguments.
    """

    kind: GateKind
    metric: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    tolerance: float | None = None
    greater_is_better: bool = True
    columns: tuple[str, ...] = ()
    settings: dict[str, float] = {}

    @property
    def name(self) -> str:
        """The name of its check, one for each rule of a model."""
        if self.kind == "metric":
            bounds = (("minimum", self.minimum), ("maximum", self.maximum))
            return " ".join([str(self.metric), *(word for word, bound in bounds if bound is not None)])
        by = f"by {', '.join(self.columns)}" if self.columns else ""
        return " ".join(word for word in (self.kind, self.metric, by) if word)


class ResourcesSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    cpu: float = 1.0
    memory: str = "4GiB"
    timeout: str = "30m"


class TriggerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a model is trained anew. count: of new rows, or of outcomes. of: what `all` and `any` are about."""

    kind: Literal["new_data", "drift", "quality", "feedback", "cron", "all", "any"]
    dataset: str | None = None
    schedule: str | None = None
    zone: str = "UTC"  # of the schedule
    count: int = 1
    of: tuple[TriggerSpec, ...] = ()


class RetrainingSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds of runs that triggers start; see `taut.Retraining`. None means unbounded."""

    settle: str = "10m"
    runs_per_day: int = 4
    cpu_hours_per_day: float | None = None
    window: str | None = None  # hours of the day, `22:00-06:00`
    zone: str = "UTC"  # of the window
    release: bool = True
    contributor: str | None = None  # column of the dataset that says who a row comes from
    share: float = 1.0  # of new rows, or of outcomes, that may come from one


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    dataset: str
    function: FunctionRef
    label: str
    request: tuple[str, ...]
    features: tuple[str, ...] = ()
    on: dict[str, str] = {}  # request or dataset column -> entity column of a feature set
    label_at: str | None = None  # column with the time at which the label became known
    split: SplitSpec = SplitSpec()
    gates: tuple[GateSpec, ...] = ()
    approvals: int = 0
    resources: ResourcesSpec = ResourcesSpec()
    params: dict[str, Scalar] = {}
    triggers: tuple[TriggerSpec, ...] = ()
    retraining: RetrainingSpec = RetrainingSpec()
    risk: Literal["low", "medium", "high"] = "medium"
    seed: int = 0
    description: str = ""


class GraphSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Models of the project composed into one that is versioned, judged, approved and released like a model."""

    name: str
    nodes: tuple[Node, ...]
    output: str  # the node whose answer is the graph's
    gates: tuple[GateSpec, ...] = ()
    approvals: int = 0
    risk: Literal["low", "medium", "high"] = "medium"
    description: str = ""


class SLOSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an endpoint promises; see `taut.SLO`. Shares of events over `window`, in milliseconds and durations."""

    availability: float | None = None
    latency_p95_ms: float | None = None
    latency_p99_ms: float | None = None
    live: float | None = None
    quality: float | None = None
    drift: float | None = None
    freshness: str | None = None
    window: str = "28d"
    freeze: bool = False


class FallbackSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What answers in the live version's place.

    endpoint: of `simpler_model`, the one on which it is released. max_stale: of `cached_answer`. value, probabilities: of
    `default_answer`, the one for a regressor, the other (class, probability) for a classifier.
    """

    kind: Literal["previous_version", "simpler_model", "cached_answer", "default_answer"]
    endpoint: str | None = None
    max_stale: str | None = None
    value: float | None = None
    probabilities: tuple[tuple[str | int | bool, float], ...] = ()


class CacheSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are kept: for how long, in how much memory of each gateway, and whether equals in rights share them."""

    ttl: str
    memory: str = "32MiB"
    shared: bool = True


class MonitorSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of an endpoint's traffic is put up with before somebody is told; see `taut.lifecycle.monitoring.Tolerance`."""

    shift: float = 0.1
    faults: float = 0.02
    risk: float = 0.05
    window: str = "24h"


class PriceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an answer costs, in dollars."""

    per_request: float = 0.0
    per_model_second: float = 0.0


class EndpointSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    model: str
    release: StrategySpec = StrategySpec()
    slo: SLOSpec | None = None
    fallback: tuple[FallbackSpec, ...] = ()  # in the order in which they are tried
    fallback_when: tuple[Literal["failed", "late", "shed", "features"], ...] = ("failed", "late")
    cache: CacheSpec | None = None
    hedge_after: str | None = None  # when a second worker is asked beside a slow one
    audit: Literal["crash-safe", "power-safe", "off"] = "crash-safe"
    runtime: Literal["auto", "inline", "worker"] = "auto"
    profile: Literal["latency", "throughput"] = "latency"  # how batches are sized within the SLO
    placement: str = "auto"  # where workers may run it: auto, cpu, or an accelerator such as cuda:0
    workers: int = 1  # processes of each gateway, where the model does not run inline
    spares: int = 0  # more of them, loaded, that wait for one to end
    keep_loaded: bool | None = None  # None loads it ahead, and evicts it where others need the memory more
    quota_per_s: float | None = None  # requests a second for each principal
    model_time_per_s: float | None = None  # seconds of models' time a second for each principal
    price: PriceSpec | None = None  # by which money is counted
    round_scores: int | None = None  # digits to which scores leave rounded
    round_suspects: int | None = None  # the same for those against whom abuse of the endpoint is held
    monitor: MonitorSpec | None = (
        None  # what is tolerated of drift, faults and wrong answers; None: what is usual
    )
    experiment: ExperimentSpec | None = None  # by which `release start` compares several versions
    description: str = ""


class PolicySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of Cedar policies, by its name below the project's folder."""

    name: str
    text: str


class ReceiverSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is told of alerts. url: of a webhook, or of a mail server. secret: name of the key that signs, or of the password."""

    name: str
    kind: Literal["webhook", "email"]
    url: str
    severity: Severity = "warning"  # the least that is told
    kinds: tuple[str, ...] = ()  # all where none is named
    secret: str = ""
    to: tuple[str, ...] = ()
    sender: str = ""
    user: str = ""
    inside: bool = False  # in a private network


class ContainSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done about a principal whom an alert names."""

    name: str
    on: str
    action: Literal["throttle", "step_up", "quarantine", "revoke"]
    severity: Severity = "critical"
    lasts: str = "1h"
    per_s: float = 0.0  # requests a second that a throttle leaves
    allow: tuple[str, ...] = ()  # endpoints that a quarantine leaves


class QuotaSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What some callers may use together, or each of them. members: ids of principals or `role:NAME`; none means everybody."""

    AMOUNTS: ClassVar[tuple[str, ...]] = (
        "requests_per_s", "model_time_per_s", "requests_per_day", "model_time_per_day", "gpu_time_per_day", "usd_per_day",
        "usd_per_month",
    )  # fmt: skip

    name: str
    members: tuple[str, ...] = ()
    each: bool = False
    endpoints: tuple[str, ...] = ()
    requests_per_s: float | None = None
    model_time_per_s: float | None = None  # seconds, as all times here
    requests_per_day: float | None = None
    model_time_per_day: float | None = None
    gpu_time_per_day: float | None = None  # of models' time, what they ran on an accelerator
    usd_per_day: float | None = None
    usd_per_month: float | None = None

    @property
    def amounts(self) -> dict[str, float]:
        """Return what is limited."""
        found = {name: getattr(self, name) for name in self.AMOUNTS}
        return {name: amount for name, amount in found.items() if amount is not None}


class AutoscaleSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the replicas of a pool follow the load. name: of the pool. What is aimed at is None where it has no say.

    cpu: processors that a replica keeps busy. concurrency: requests under way in it. wait: of 95% of requests for a worker.
    latency: of 95% of answers, as a share of their endpoint's objective. replica_hours: that a day may cost.
    """

    name: str
    minimum: int = 1
    maximum: int = 1
    cpu: float | None = None
    concurrency: float | None = None
    wait: str | None = None
    latency: float | None = None
    replica_hours: float | None = None
    window: str = "60s"
    cooldown: str = "5m"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a project declares. Equal projects have equal digests."""

    project: str = "default"
    environment: Literal["development", "staging", "production"] = "development"
    datasets: tuple[DatasetSpec, ...] = ()
    features: tuple[FeaturesSpec, ...] = ()
    models: tuple[ModelSpec, ...] = ()
    graphs: tuple[GraphSpec, ...] = ()
    endpoints: tuple[EndpointSpec, ...] = ()
    policies: tuple[PolicySpec, ...] = ()  # who may do what, beside the built-in policies
    receivers: tuple[ReceiverSpec, ...] = ()  # who is told of alerts
    containments: tuple[ContainSpec, ...] = ()
    playbooks: tuple[PlaybookSpec, ...] = ()  # what is done about incidents
    freezes: tuple[FreezeSpec, ...] = ()  # when releases wait
    drills: tuple[DrillSpec, ...] = ()
    quotas: tuple[QuotaSpec, ...] = ()  # beside those of single endpoints
    autoscalers: tuple[AutoscaleSpec, ...] = ()  # pools whose replicas follow the load
    bundle: str = ""  # digest of the code bundle
    root: str = (
        ""  # the project's folder, against which relative sources are resolved; not part of the digest
    )

    @property
    def digest(self) -> str:
        return digest_json(msgspec.structs.replace(self, root=""))
