"""What a serving snapshot holds, and its one signed form."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from taut.core.errors import Corrupt
from taut.core.schema import ModelSignature
from taut.ports.keys import Keys, PublicKey
from taut.trust.identity.verifier import VerifierData
from taut.trust.quota import Limit
from taut.trust.signing import SignedStatement, sign_statement, verify_statement

PAYLOAD_TYPE: Final = "application/vnd.taut.serving-snapshot+json"
Audit = Literal["crash-safe", "power-safe", "off"]
Runtime = Literal["auto", "inline", "worker"]


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One version of a model as an endpoint serves it.

    version: `name@number`. artifact: digest of the ONNX file; what is loaded has it or is refused.
    path: where the file lies, absolute or relative to the installation's home.
    feature_columns: feature set -> materialisation -> its columns in the order of its rows' values, for every
    materialisation whose rows may be online. A row of another is not read: nobody knows what its values mean.
    """

    version: str
    release: str
    artifact: str
    path: str
    signature: ModelSignature
    feature_columns: dict[str, dict[str, tuple[str, ...]]] = {}


class EndpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One endpoint.

    fallback: answers when the live version fails, marked in the answer; used only where it takes the same request
    and gives the same classes.
    runtime: where the model runs; `auto` measures it at load and takes a worker process where one row takes longer than
    `GatewaySettings.worker_us` or the risk is high. workers: processes of each gateway. latency_ms: what an answer may
    take, by which batches and the line before the workers are sized.
    quota: for each principal; None does not limit. max_age_s: a tighter bound than the snapshot's on how long this
    endpoint is served without hearing from control (high risk).
    """

    name: str
    live: ServedModel
    fallback: ServedModel | None = None
    audit: Audit = "crash-safe"
    risk: Literal["low", "medium", "high"] = "medium"
    runtime: Runtime = "auto"
    workers: int = 1
    latency_ms: float = 1000.0
    quota: Limit | None = None
    max_age_s: float | None = None


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of a gateway.

    max_in_flight: requests that wait for something at once. inline_us: batches that take longer, by the model's measured
    cost, run beside the event loop. worker_us: a model whose one row takes longer runs in worker processes, where its
    endpoint does not say otherwise. worker_memory_bytes: private memory of one. worker_hang_s: a worker that takes longer
    over a batch is killed and replaced.
    """

    max_body_bytes: int = 8 * 2**20
    max_rows: int = 10_000
    max_in_flight: int = 1024
    default_deadline_ms: int = 30_000
    inline_us: float = 1000.0
    worker_us: float = 200.0
    worker_memory_bytes: int = 2 * 2**30
    worker_hang_s: float = 10.0


class ServingSnapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of the data plane at one epoch. Holds no secret.

    epoch: grows with each snapshot; a gateway never goes back. max_age_s: how long after `issued_at_us` it may be
    served when nothing newer comes. policy: the project's Cedar text, whose digest must be `policy_digest`.
    gateways: how many share a quota.
    """

    epoch: int
    issued_at_us: int
    max_age_s: float
    endpoints: tuple[EndpointConfig, ...]
    identity: VerifierData
    policy: str = ""
    policy_digest: str
    settings: GatewaySettings = GatewaySettings()
    gateways: int = 1


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
