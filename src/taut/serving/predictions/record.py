"""One record of the prediction log: everything that is needed to explain an answer, in msgpack."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from taut.core.errors import Corrupt
from taut.core.evidence import Scalar

ID_BYTES: Final = 30  # `req_` and 26 characters; fixed, so that an id lies at a fixed place
ID_OFFSET: Final = 2  # after the array's and the string's one-byte headers
CACHED: Final = "cached"
DEFAULT: Final = "default"
WITHOUT: Final = "without="
TAKEN: Final = 202
"""The status of a record that holds no answer but outcomes of earlier ones, with OUTCOMES for columns."""
SHADOWED: Final = 203
"""The status of a record of what a shadow would have answered: nobody was given it. Its fallback names the request."""
SHADOW_OF: Final = "shadow-of="
OUTCOMES: Final = ("request_id", "row", "label", "entity", "at")
Origin = tuple[str, int] | tuple[str, int, tuple[str, ...]] | tuple[str, int, tuple[str, ...], str]
LIVE: Final[Origin] = ("", 0)
"""The origin of an answer that the live version computed for this very request."""


class FeatureRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One row of a feature set as it was found online: which materialisation wrote it, of when, and its values."""

    source: str
    event_time_us: int
    values: tuple[Scalar, ...]


class Lookup(msgspec.Struct, frozen=True, array_like=True):
    """A feature set and its columns, in the order of a FeatureRow's values; none while they change."""

    feature_set: str
    columns: tuple[str, ...]


class RecordHead(msgspec.Struct, frozen=True, array_like=True):
    """What all records of one endpoint at one epoch share; encoded once and copied into each record.

    columns: the request columns, in the order of a row's values. share: the part of the callers that this version answered
    while another was tried beside it, 0 where none was: an answer's weight; of a shadow, the part of the requests that it was asked.
    trial, stage: the release in which it was tried, and how many times weights had changed by then.
    """

    endpoint: str
    version: str
    release: str
    epoch: int
    columns: tuple[str, ...]
    lookups: tuple[Lookup, ...] = ()
    share: float = 0.0
    trial: str = ""
    stage: int = 0


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What was answered: labels and probabilities of a classifier, values of a regressor, a row each."""

    labels: tuple[Any, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    values: tuple[float, ...] = ()


class PredictionRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answer, or one refusal after the caller was known.

    time_us: when the request was taken up, microseconds since the epoch. status: the HTTP status. rows: the request's
    values; bytes where the request was one FP32 tensor: its values, row-major, little-endian. features: row -> lookup -> what was found, in the head's order; empty without lookups. guard_us: the time
    that identity, policy, quota, validation and the response gate took. error: code and message of a refusal.
    fallback: what answered in the live version's place: another version, `cached` or `default`. age_us: how long ago an
    answer from the cache was computed, at least 1; 0 for one that was computed for this request. nodes: of a graph, those
    that answered, each as `NODE=MODEL@NUMBER`; a fallback of `without=NODE,…` names those that it was answered without.
    worker: by which workers the answer was computed, each as `MODEL@NUMBER#INCARNATION`, of a graph several with commas between, with `~`
    behind one that was not on record as admitted, since its gateway went on by grace; empty where the gateway computed it.
    """

    request_id: str
    time_us: int
    head: RecordHead
    principal: str
    subject: str
    status: int
    guard_us: int
    rows: bytes | tuple[tuple[Any, ...], ...] = ()
    features: tuple[tuple[FeatureRow | None, ...], ...] = ()
    answer: Answer = Answer()
    error: str = ""
    fallback: str = ""
    age_us: int = 0
    nodes: tuple[str, ...] = ()
    worker: str = ""

    @property
    def version(self) -> str:
        """Return the version that made the answer; nothing where none did."""
        if self.fallback in (CACHED, "") or self.fallback.startswith((WITHOUT, SHADOW_OF)):
            return self.head.version
        return "" if self.fallback == DEFAULT else self.fallback

    def requests(self) -> list[dict[str, Any]]:
        """Return the request's rows by column."""
        rows: Sequence[Sequence[Any]] = (
            self.rows if isinstance(self.rows, tuple) else self._unpacked(self.rows)
        )
        return [dict(zip(self.head.columns, row, strict=True)) for row in rows]

    def _unpacked(self, packed: bytes) -> list[tuple[float, ...]]:
        return list(struct.iter_unpack(f"<{len(self.head.columns)}f", packed))


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(PredictionRecord)
_encode: Final = _ENCODER.encode
_NO_ANSWER: Final = Answer()


def encode_head(head: RecordHead) -> msgspec.Raw:
    """Return the head as `encode_record` takes it."""
    return msgspec.Raw(_encode(head))


def encode_record(
    request_id: str,
    time_us: int,
    head: msgspec.Raw,
    principal: str,
    subject: str,
    status: int,
    guard_us: int,
    rows: bytes | Sequence[Sequence[object]] = (),
    features: Sequence[Sequence[FeatureRow | None]] = (),
    answer: object = _NO_ANSWER,
    error: str = "",
    origin: Origin = LIVE,
) -> bytes:
    """Return the bytes of a PredictionRecord, without building one: this runs on every request.

    answer: an Answer, or a Struct that encodes as one (the runtime's Outputs). origin: fallback and age_us, of a graph nodes, and of workers which.
    """
    assert len(request_id) == ID_BYTES
    return _encode(
        (
            request_id, time_us, head, principal, subject, status, guard_us,
            rows, features, answer, error, *origin,
        )
    )  # fmt: skip


def decode_record(payload: bytes | memoryview) -> PredictionRecord:
    """Return the record. Raises Corrupt when the bytes are none."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"a record of the prediction log cannot be read: {error}") from error
