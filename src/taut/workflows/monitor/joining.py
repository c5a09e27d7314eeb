"""Finding the answers that outcomes are about: by request id, or the newest about an entity before a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from taut.core.evidence import Scalar
from taut.core.schema import ModelSignature
from taut.core.times import to_us
from taut.lifecycle.monitoring import SCORE, EndpointWatch
from taut.lifecycle.monitoring.outcomes import Outcome
from taut.serving.predictions import CACHED, PredictionReader, PredictionRecord, decode_record

_OK: Final = 200
_BACK_US: Final = 24 * 3600 * 10**6
_SEGMENTS: Final = 64


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome as it was told, of an answer that is yet to be found."""

    endpoint: str
    label: Scalar
    principal: str
    told_us: int
    request_id: str = ""
    row: int = 0
    entity: Mapping[str, Scalar] = {}
    at_us: int = 0


Found = tuple[Claim, PredictionRecord, int]
"""A claim, the record of the answer that it is about, and which row of it."""


def claims_of(record: PredictionRecord) -> Iterator[Claim]:
    """Yield what a record of outcomes tells of; a time that is none is nobody's."""
    for told in record.requests():
        try:
            at = datetime.fromisoformat(told["at"]) if told["at"] else None
        except ValueError:
            at = None
        if told["request_id"] or (at is not None and at.tzinfo is not None):
            yield Claim(
                endpoint=record.head.endpoint, label=told["label"], principal=record.principal, told_us=record.time_us,
                request_id=told["request_id"], row=told["row"], entity=told["entity"] or {}, at_us=0 if at is None else to_us(at),
            )  # fmt: skip


def join(log: PredictionReader, claims: Sequence[Claim]) -> tuple[list[Found], list[Claim]]:
    """Return claims with their answers, and those of which no answer of their endpoint was found.

    By entity the newest answer of the 24 hours before its time counts, and at most the newest 64 segments of these are read.
    """
    records = log.find_all({one.request_id for one in claims if one.request_id})
    about = [one for one in claims if not one.request_id]
    newest = _newest(log, about) if about else {}
    found: list[Found] = []
    missing = []
    for at, claim in enumerate(claims):
        record, row = (
            (records.get(claim.request_id), claim.row)
            if claim.request_id
            else newest.get(id(claim), (None, 0))
        )
        if record is None or not _answers(record, claim.endpoint, row):
            missing.append(claims[at])
        else:
            found.append((claim, record, row))
    return found, missing


def _newest(log: PredictionReader, claims: Sequence[Claim]) -> dict[int, tuple[PredictionRecord | None, int]]:
    first, last = min(one.at_us for one in claims) - _BACK_US, max(one.at_us for one in claims)
    segments = [one for one in log.segments() if one.started_us <= last and log.written_us(one) >= first]
    best: dict[int, tuple[PredictionRecord | None, int]] = {}
    for segment in segments[-_SEGMENTS:]:
        for record in map(decode_record, log.payloads(segment)):
            if not first <= record.time_us <= last or record.status != _OK:
                continue
            rows = record.requests()
            for claim in claims:
                if (
                    claim.endpoint != record.head.endpoint
                    or not claim.at_us - _BACK_US <= record.time_us <= claim.at_us
                ):
                    continue
                before = best.get(id(claim), (None, 0))[0]
                if before is None or before.time_us < record.time_us:
                    at = next((at for at, row in enumerate(rows) if _is_about(row, claim.entity)), None)
                    if at is not None:
                        best[id(claim)] = record, at
    return best


def _is_about(row: Mapping[str, Any], entity: Mapping[str, Scalar]) -> bool:
    return all(row.get(name) == value for name, value in entity.items())


def _answers(record: PredictionRecord, endpoint: str, row: int) -> bool:
    """Whether a record holds that row of an answer of the endpoint's own version."""
    count = len(record.answer.probabilities or record.answer.values)
    own = record.status == _OK and record.fallback in ("", CACHED)
    return own and record.head.endpoint == endpoint and row < count


def outcome_of(found: Found, signature: ModelSignature, watch: EndpointWatch | None) -> Outcome:
    """Return a claim as an outcome: whether the answer was wrong, and where its score lay."""
    claim, record, row = found
    answer, label = record.answer, claim.label
    truth, cell = -1, 0
    if answer.probabilities:
        wrong = answer.labels[row] != label
        if len(signature.classes) == 2:
            truth = int(label == signature.classes[1])
        score = answer.probabilities[row][1]
    else:
        score = answer.values[row]
        hard = 0.0 if watch is None else watch.reference.hard
        wrong = isinstance(label, str) or label is None or abs(float(label) - score) > hard
    if watch is not None:
        cell = int(watch.cell_of_score({SCORE: [score]})[0])
    return Outcome(
        request_id=record.request_id, row=row, endpoint=claim.endpoint, version=record.head.version, label=label,
        wrong=bool(wrong), cell=cell, truth=truth, principal=claim.principal, at_us=claim.told_us,
    )  # fmt: skip


def about(claims: Iterable[Claim]) -> dict[str, int]:
    """Return how many claims each endpoint has."""
    found: dict[str, int] = {}
    for one in claims:
        found[one.endpoint] = found.get(one.endpoint, 0) + 1
    return found
