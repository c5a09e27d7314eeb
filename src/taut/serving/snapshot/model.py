"""What a serving snapshot holds, and its one signed form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec
from msgspec import structs

from taut.core.errors import Corrupt
from taut.core.schema import ModelSignature
from taut.ports.keys import Keys, PublicKey
from taut.project.manifest import PolicySpec
from taut.trust.containment import Contained
from taut.trust.identity.verifier import VerifierData
from taut.trust.policy import Attributes
from taut.trust.quota import Allowance, Limit, Price, throttle
from taut.trust.signing import SignedStatement, sign_statement, verify_statement

PAYLOAD_TYPE: Final = "application/vnd.taut.serving-snapshot+json"
Audit = Literal["crash-safe", "power-safe", "off"]
Runtime = Literal["auto", "inline", "worker"]
Profile = Literal["latency", "throughput"]
Occasion = Literal["failed", "late", "shed", "features"]
"""When something stands in: the model failed or its workers did, it was not done in time, there was too much to do, or a
feature that it needs could not be had."""


class PlantedFault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a release does wrong on purpose, in a drill. failing: the share of its answers that fail. slow_ms: by which the others are
    late; of a model inside the gateway. most: so many answers of a gateway at most, whatever becomes of control."""

    failing: float = 0.0
    slow_ms: float = 0.0
    most: int = 10_000


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a model as an endpoint serves it.

    version: `name@number`. artifact: digest of its file; what is loaded has it or is refused.
    path: where the file lies, absolute or relative to the installation's home.
    feature_columns: feature set -> materialisation -> its columns in the order of its rows' values, for every
    materialisation whose rows may be online. A row of another is not read: nobody knows what its values mean.
    redefined: feature set -> those of them that were made by another definition than the version was trained with.
    nodes: of a graph, its models by the name of their node; the artifact is then the plan, which says what they must be.
    fault: of a drill; None else.
    """

    version: str
    release: str
    artifact: str
    path: str
    signature: ModelSignature
    feature_columns: dict[str, dict[str, tuple[str, ...]]] = {}
    redefined: dict[str, tuple[str, ...]] = {}
    nodes: dict[str, ServedModel] = {}
    fault: PlantedFault | None = None


class PreviousVersion(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="previous_version"
):
    """The version that the live one replaced."""

    model: ServedModel


class OtherModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="other_model"):
    """A version of another, simpler model, which is live on an endpoint of its own."""

    model: ServedModel


class StaleAnswer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="stale_answer"):
    """The last answer of the live version to the same request, whatever became of its features since."""

    max_stale_s: float


class DefaultAnswer(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="default_answer"
):
    """The same answer for every row: a value, or a probability for each class."""

    value: float | None = None
    probabilities: tuple[tuple[str | int | bool, float], ...] = ()


StandIn = PreviousVersion | OtherModel | StaleAnswer | DefaultAnswer


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are kept.

    ttl_s: no older ones are given, nor any older than a feature may be. max_bytes: of each gateway. shared: whether
    callers of the same rights share answers; otherwise each has only his own.
    """

    ttl_s: float
    max_bytes: int = 32 * 2**20
    shared: bool = True


class ArmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version that answers a part of an endpoint's callers. weight: that part. slot: 1 to 7, its own as long as the trial lasts."""

    model: ServedModel
    weight: float
    slot: int = 1


class TrialConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Versions that answer parts of an endpoint's callers beside the live one: of a canary one, of an experiment several.

    release: under way, by which callers are drawn: another draws them anew. stage: grows with each change of a weight; what is
    counted belongs to one stage. arms: their weights are above 0 and sum to less than 1.
    """

    release: str
    stage: int
    arms: tuple[ArmConfig, ...]

    @property
    def left(self) -> float:
        """Return the weight of the live version."""
        return 1.0 - sum(arm.weight for arm in self.arms)


class ShadowConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version that is in memory beside the live one, ready to take its place, and answers nobody.

    share: the part of the requests that it is asked too once they are answered, 0 <= share <= 1.
    """

    model: ServedModel
    share: float = 0.0


class EndpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One endpoint.

    fallbacks: what answers when the live version cannot, tried in this order, marked in the answer; a version is used only
    where it can score the same request and gives the same classes. fallback_when: on what occasions. cache: None keeps
    no answers. hedge_after_ms: when a second worker is asked beside a slow one; None never.
    runtime: where the model runs; `auto` measures it at load and takes a worker process where one row takes longer than
    `GatewaySettings.worker_us` or the risk is high. workers: processes of each gateway. spares: processes beside them that wait for one
    to end. latency_ms: what an answer may
    take, by which batches and the line before the workers are sized; profile: how boldly. placement: on which devices workers may run it: `auto`, `cpu`, or an accelerator such as
    `cuda:0`. keep_loaded: True keeps the live version in memory,
    False loads it with its first request, None loads it ahead and evicts it where others need the room more.
    quota: for each principal; None does not limit. model_time: of each principal, in milliseconds that models take for him. price: of an answer.
    max_age_s: a tighter bound than the snapshot's on how long this endpoint is served without hearing from control (high risk). round_scores: digits to which scores leave rounded; None leaves
    them. round_suspects: the same for suspects, the principals against whom abuse of this endpoint is held now. trial: a release under way, None mostly; share: the part of
    the callers that this version answers then, else 0; tried_in: that release and its stage. shadow: a release under way that answers nobody. kept: what the live version
    replaced, while it stays in memory so that the way back takes no load.
    """

    name: str
    live: ServedModel
    fallbacks: tuple[StandIn, ...] = ()
    fallback_when: tuple[Occasion, ...] = ("failed", "late")
    cache: CacheConfig | None = None
    hedge_after_ms: float | None = None
    audit: Audit = "crash-safe"
    risk: Literal["low", "medium", "high"] = "medium"
    runtime: Runtime = "auto"
    workers: int = 1
    spares: int = 0
    latency_ms: float = 1000.0
    profile: Profile = "latency"
    placement: str = "auto"
    keep_loaded: bool | None = None
    quota: Limit | None = None
    model_time: Limit | None = None
    price: Price | None = None
    max_age_s: float | None = None
    round_scores: int | None = None
    round_suspects: int | None = None
    suspects: tuple[str, ...] = ()
    trial: TrialConfig | None = None
    share: float = 0.0
    tried_in: tuple[str, int] = ("", 0)
    shadow: ShadowConfig | None = None
    kept: ServedModel | None = None

    @property
    def arms(self) -> tuple[ArmConfig, ...]:
        return () if self.trial is None else self.trial.arms

    def as_tried(self) -> tuple[EndpointConfig, ...]:
        """Return the endpoint as each version serves it that is tried beside the live one."""
        return tuple(structs.replace(self, live=arm.model, trial=None, share=arm.weight) for arm in self.arms)

    def with_trial(self, trial: TrialConfig) -> EndpointConfig:
        """Return the endpoint with a trial: what its arms leave is the live version's."""
        return structs.replace(self, trial=trial, share=trial.left, tried_in=(trial.release, trial.stage))

    def with_shadow_live(self) -> EndpointConfig | None:
        """Return the endpoint as the shadow would serve it, with nothing that remembers or stands in; None where there is none."""
        if self.shadow is None:
            return None
        return structs.replace(
            self, live=self.shadow.model, shadow=None, kept=None, share=self.shadow.share, cache=None, fallbacks=(),
            hedge_after_ms=None, keep_loaded=True, price=None,
        )  # fmt: skip

    @property
    def beside(self) -> tuple[ServedModel, ...]:
        """Return what is in memory beside the live version and answers nobody."""
        shadow = () if self.shadow is None else (self.shadow.model,)
        return shadow if self.kept is None else (*shadow, self.kept)

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """Return the live version, those that may stand in for it, those that are tried beside it, and those that only lie ready."""
        others = (one.model for one in self.fallbacks if isinstance(one, PreviousVersion | OtherModel))
        return (self.live, *others, *(arm.model for arm in self.arms), *self.beside)


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of a gateway.

    max_in_flight: requests that wait for something at once. inline_us: batches that take longer, by the model's measured
    cost, run beside the event loop. worker_us: a model whose one row takes longer runs in worker processes, where its
    endpoint does not say otherwise. worker_memory_bytes: private memory of one. worker_cpus: processors that all threads of
    one may keep busy. worker_hang_s: a worker that takes longer over a batch is killed and replaced. device_pause_s: how long an accelerator that failed is left alone, the first time.
    """

    max_body_bytes: int = 8 * 2**20
    max_rows: int = 10_000
    max_in_flight: int = 1024
    default_deadline_ms: int = 30_000
    inline_us: float = 1000.0
    worker_us: float = 200.0
    worker_memory_bytes: int = 2 * 2**30
    worker_cpus: float = 1.0
    worker_hang_s: float = 10.0
    device_pause_s: float = 5.0


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A further machine of the installation. name: of the principal that it is. url: of its data plane. gateways: how many
    it has."""

    name: str
    url: str
    gateways: int


class ServingSnapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of the data plane at one epoch. Holds no secret.

    epoch: grows with each snapshot; a gateway never goes back. max_age_s: how long after `issued_at_us` it may be
    served when nothing newer comes. policies: the project's Cedar files. resources: what they may ask of resources.
    policy_digest: what the digest of both must be. contained: who is held back, each until a time of its own. allowances: quotas above those of one endpoint.
    gateways: how many share a quota, on all machines. machines: those that joined the first one. url: of
    the data plane of that one, empty where it is not known. log_key: what the prediction log is sealed to, an X25519 public
    key, hexadecimal; empty leaves it open.
    """

    epoch: int
    issued_at_us: int
    max_age_s: float
    endpoints: tuple[EndpointConfig, ...]
    identity: VerifierData
    policies: tuple[PolicySpec, ...] = ()
    resources: dict[str, Attributes] = {}
    policy_digest: str
    contained: tuple[Contained, ...] = ()
    allowances: tuple[Allowance, ...] = ()
    settings: GatewaySettings = GatewaySettings()
    gateways: int = 1
    machines: tuple[Machine, ...] = ()
    url: str = ""
    log_key: str = ""

    @property
    def limits(self) -> dict[str, Limit]:
        """Return the quotas by the name of their endpoint, those of its models' time by that with `:time`; and allowances
        and throttles by names of their own."""
        found = {one.name: one.quota for one in self.endpoints if one.quota is not None}
        found |= {f"{one.name}:time": one.model_time for one in self.endpoints if one.model_time is not None}
        for allowance in self.allowances:
            found |= allowance.named()
        for one in self.contained:
            if one.action == "throttle":
                found |= throttle(one.id, one.principal, one.per_s)
        return found

    def gateways_at(self, machine: str) -> int:
        """Return how many gateways a machine has, the first one where it has no name; all where it is not known yet."""
        joined = {one.name: one.gateways for one in self.machines}
        if machine:
            return max(1, joined.get(machine, self.gateways))
        return max(1, self.gateways - sum(joined.values()))


def sign_snapshot(keys: Keys, snapshot: ServingSnapshot) -> SignedStatement:
    """Return the snapshot signed by the `snapshot` key."""
    payload = msgspec.to_builtins(snapshot)
    return sign_statement(keys, purpose="snapshot", payload_type=PAYLOAD_TYPE, payload=payload)


def open_snapshot(data: bytes, trusted: Iterable[PublicKey]) -> ServingSnapshot:
    """Return the snapshot in a signed statement's JSON.

    Raises Corrupt when the bytes are no such statement or were changed; Denied when no trusted key signed them.
    """
    payload = verify_statement(SignedStatement.from_json(data), trusted, payload_type=PAYLOAD_TYPE)
    try:
        return msgspec.convert(payload, ServingSnapshot)
    except msgspec.ValidationError as error:
        raise Corrupt(
            f"the snapshot is signed, but of another shape than this version reads: {error}"
        ) from error
