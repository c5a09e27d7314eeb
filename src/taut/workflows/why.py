"""Why an answer was given: from a request back to the release, the model, the run, the data and the rows behind it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import polars as pl

from taut.core.errors import TautError
from taut.core.evidence import Scalar
from taut.core.refs import Kind, Ref, VersionRef
from taut.core.schema import FeatureLookup
from taut.core.times import from_us
from taut.lifecycle.features import Materialisation
from taut.ports.tables import ROW_ID
from taut.project.manifest import DatasetSpec
from taut.serving.predictions import FeatureRow, PredictionRecord
from taut.trust.lineage import lineage_as_json
from taut.workflows.rooms import Rooms

_ROWS_SHOWN: Final = 3


def why_request(rooms: Rooms, request_id: str, *, depth: int = 64) -> dict[str, Any]:
    """Explain one answer.

    Returns `{"id", "request", "tree"}`: what was asked and answered, and the tree of everything that it came from, in
    the form of `lineage_as_json`, with the source rows behind each feature (the newest few of its entity up to the
    feature's time, where the source names them by the same columns).
    Raises NotFound for a request that is not in the prediction log.
    """
    record = rooms.predictions.find(request_id)
    with rooms.records.read() as tx:
        release = rooms.lineage.why(tx, Ref(Kind.RELEASE, record.head.release), depth=depth)
    inputs = [lineage_as_json(release)]
    signature = rooms.registry.signature(VersionRef.parse(record.head.version))
    for index, lookup in enumerate(signature.lookups):
        inputs += _features(rooms, record, lookup, index)
    step = {
        "activity": "predict",
        "at": from_us(record.time_us).isoformat(),
        "facts": {
            "endpoint": record.head.endpoint,
            "principal": record.principal,
            "epoch": record.head.epoch,
        },
        "inputs": inputs,
    }
    tree = {"ref": str(Ref(Kind.REQUEST, request_id)), "facts": _answer(record), "made_by": [step]}
    return {"id": tree["ref"], "request": _asked(record), "tree": tree}


def _asked(record: PredictionRecord) -> dict[str, Any]:
    return {
        "endpoint": record.head.endpoint, "version": record.version or record.fallback, "release": record.head.release,
        "principal": record.principal, "status": record.status, "at": from_us(record.time_us).isoformat(),
        "instances": record.requests(), "labels": list(record.answer.labels),
        "probabilities": [list(row) for row in record.answer.probabilities], "values": list(record.answer.values),
        **({"nodes": list(record.nodes)} if record.nodes else {}),
        **({"worker": record.worker} if record.worker else {}),
    }  # fmt: skip


def _answer(record: PredictionRecord) -> dict[str, Scalar]:
    facts: dict[str, Scalar] = {"status": record.status, "guard_us": record.guard_us}
    if record.fallback:
        facts["fallback"] = record.fallback
    if record.nodes:
        facts["nodes"] = ", ".join(record.nodes)
    if record.age_us:
        facts["age_us"] = record.age_us
    if record.answer.labels:
        facts["label"] = record.answer.labels[0]
    if record.answer.probabilities:
        facts["probability"] = record.answer.probabilities[0][-1]
    if record.answer.values:
        facts["value"] = record.answer.values[0]
    return facts


def _features(
    rooms: Rooms, record: PredictionRecord, lookup: FeatureLookup, index: int
) -> list[dict[str, Any]]:
    """The feature values of the request's first row, and the rows that they were computed from."""
    found = record.features[0][index] if record.features and index < len(record.features[0]) else None
    if found is None:
        return [{"ref": f"features:{lookup.feature_set}", "facts": {"found": False}}]
    made = rooms.features.materialisation(lookup.feature_set, found.source)
    asked = record.requests()[0]
    key = {entity: asked.get(column) for entity, column in zip(lookup.entity, lookup.keys, strict=True)}
    facts: dict[str, Any] = {"event_time": from_us(found.event_time_us).isoformat()}
    facts |= {
        f"{lookup.feature_set}.{name}": value for name, value in zip(made.features, found.values, strict=True)
    }
    node = {
        "ref": str(made.ref), "facts": facts,
        "made_by": [{
            "activity": "features", "at": made.created_at.isoformat(), "facts": {"key": _said(key)},
            "inputs": [
                source
                for dataset, snapshot in made.sources.items()
                for source in _rows(rooms, dataset, VersionRef.parse(_bare(snapshot)), key, found, made)
            ],
        }],
    }  # fmt: skip
    return [node]


def _bare(snapshot: str) -> str:
    return snapshot.removeprefix("snapshot:")


def _rows(
    rooms: Rooms,
    dataset: str,
    snapshot: VersionRef,
    key: dict[str, Any],
    found: FeatureRow,
    made: Materialisation,
) -> list[dict[str, Any]]:
    top = {"ref": str(Ref(Kind.SNAPSHOT, str(snapshot))), "facts": {"dataset": dataset}}
    spec = rooms.data.spec(snapshot)
    try:
        origins = [
            rooms.data.locate(dataset, row) for row in _row_ids(rooms, spec, snapshot, key, found, made)
        ]
    except TautError as error:
        return [{**top, "facts": {**top["facts"], "rows": f"not found: {error.message}"}}]  # type: ignore[dict-item]  # facts is a dict
    if not origins:
        return [top]
    step = {
        "activity": "read", "at": made.created_at.isoformat(),
        "inputs": [
            {
                "ref": f"{Kind.SOURCE}:{origin.digest}#{origin.source}",
                "facts": {"file": origin.source, "row": origin.row, "row_id": origin.row_id, "batch": origin.batch},
            }
            for origin in origins
        ],
    }  # fmt: skip
    return [{**top, "made_by": [step]}]


def _row_ids(
    rooms: Rooms,
    spec: DatasetSpec,
    snapshot: VersionRef,
    key: dict[str, Any],
    found: FeatureRow,
    made: Materialisation,
) -> list[int]:
    rows = rooms.data.scan(snapshot, row_ids=True)
    names = rows.collect_schema().names()
    if not set(key) <= set(names):
        return []
    time = made.spec.event_time if made.spec.event_time in names else spec.event_time
    fits = pl.all_horizontal([pl.col(name) == value for name, value in key.items()])
    if time is not None and time in names:
        at: datetime = from_us(found.event_time_us)
        rows = rows.filter(fits & (pl.col(time) <= at)).sort(time, ROW_ID)
    else:
        rows = rows.filter(fits).sort(ROW_ID)
    return rows.select(ROW_ID).tail(_ROWS_SHOWN).collect()[ROW_ID].reverse().to_list()


def _said(key: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in key.items())
