"""Operations on data: bring it in, look at it, mend what was set aside, go back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from taut.core.errors import InvalidInput
from taut.core.refs import VersionRef
from taut.core.times import from_us
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Nothing,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)
from taut.entrypoints.operations.places import check_source
from taut.project.declared import dataset_of

_LIMIT: Final = 10_000

State = Literal["open", "repaired", "replayed", "discarded", "rejected"]


class DataIngest(Request, frozen=True):
    """source: a path, glob or URL instead of the declared one. request: a key that makes asking twice harmless."""

    dataset: str
    source: str | None = None
    request: str | None = None


class DataShow(Request, frozen=True):
    """snapshot: `dataset@number` or the bare number; the current one when null."""

    dataset: str
    snapshot: str | None = None


class DataHistory(Request, frozen=True):
    dataset: str
    limit: int = 50


class DataDiff(Request, frozen=True):
    """old, new: snapshots; `new` is the current one when null."""

    dataset: str
    old: str
    new: str | None = None


class DataRollback(Request, frozen=True):
    dataset: str
    to: str


class DataQuarantine(Request, frozen=True):
    """state: of the records; null for all. after: the last id of the page before."""

    dataset: str
    state: State | None = "open"
    batch: str | None = None
    rule: str | None = None
    after: str | None = None
    limit: int = 100


class DataRepair(Request, frozen=True):
    """values: column -> its right value."""

    dataset: str
    record: str
    values: dict[str, bool | int | float | str | None]


class DataReplay(Request, frozen=True):
    """records: ids of repaired records, all of them when null."""

    dataset: str
    records: tuple[str, ...] | None = None
    include_open: bool = False


class DataDiscard(Request, frozen=True):
    dataset: str
    records: tuple[str, ...]
    reason: str


def _ingest(platform: Platform, caller: Caller, request: DataIngest, progress: Progress) -> Json:
    manifest = platform.plans.require()
    check_source(caller, manifest, request.source)
    result = platform.data.ingest(
        dataset_of(manifest, request.dataset),
        root=Path(manifest.root),
        source=request.source,
        request=request.request,
        actor=caller.principal.id,
        progress=progress,
    )
    return _ingested(result)


def _ingested(result: Any) -> Json:
    plain: Json = to_json(result)
    verdict = result.verdict
    plain["verdict"] = None if verdict is None or result.unchanged else str(verdict.decision)
    plain["reasons"] = [] if verdict is None else list(verdict.reasons)
    return plain


def _list(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    return {"datasets": [_timed(item) for item in platform.data.list()]}


def _show(platform: Platform, _caller: Caller, request: DataShow, _progress: Progress) -> Json:
    if request.snapshot is None:
        return _snapshot(platform.data.show(request.dataset))
    return _snapshot(platform.data.snapshot(VersionRef.parse(request.snapshot, name=request.dataset)))


def _snapshot(info: Any) -> Json:
    plain = _timed(info)
    return {**plain, "snapshot": str(info.ref), "schema": plain["schema"]["columns"]}


def _history(platform: Platform, _caller: Caller, request: DataHistory, _progress: Progress) -> Json:
    found = platform.data.history(request.dataset, limit=_bounded(request.limit))
    return {"dataset": request.dataset, "snapshots": [_snapshot(info) for info in found]}


def _diff(platform: Platform, _caller: Caller, request: DataDiff, _progress: Progress) -> Json:
    old = VersionRef.parse(request.old, name=request.dataset)
    if request.new is None:
        new = platform.data.show(request.dataset).ref
    else:
        new = VersionRef.parse(request.new, name=request.dataset)
    plain: Json = to_json(platform.data.diff(old, new))
    return plain


def _rollback(platform: Platform, caller: Caller, request: DataRollback, _progress: Progress) -> Json:
    to = VersionRef.parse(request.to, name=request.dataset)
    if to.name != request.dataset:
        raise InvalidInput(f"{to} is no snapshot of {request.dataset}: name one of its own")
    return _snapshot(platform.data.rollback(request.dataset, to.number, actor=caller.principal.id))


def _quarantine(platform: Platform, _caller: Caller, request: DataQuarantine, _progress: Progress) -> Json:
    found = platform.data.quarantine(
        request.dataset,
        state=request.state,
        batch=request.batch,
        rule=request.rule,
        after=request.after,
        limit=_bounded(request.limit),
    )
    return {"dataset": request.dataset, "records": [_timed(record) for record in found]}


def _repair(platform: Platform, caller: Caller, request: DataRepair, _progress: Progress) -> Json:
    dataset = dataset_of(platform.plans.require(), request.dataset)
    return _timed(platform.data.repair(dataset, request.record, request.values, actor=caller.principal.id))


def _replay(platform: Platform, caller: Caller, request: DataReplay, progress: Progress) -> Json:
    progress("putting repaired records before the gate again", None)
    dataset = dataset_of(platform.plans.require(), request.dataset)
    return _ingested(
        platform.data.replay(
            dataset, ids=request.records, include_open=request.include_open, actor=caller.principal.id
        )
    )


def _discard(platform: Platform, caller: Caller, request: DataDiscard, _progress: Progress) -> Json:
    count = platform.data.discard(
        request.dataset, request.records, reason=request.reason, actor=caller.principal.id
    )
    return {"dataset": request.dataset, "discarded": count}


def _timed(value: Any) -> Json:
    """Plain JSON, with times as people read them beside the microseconds."""
    plain: Json = to_json(value)
    for name in ("created_us", "updated_us"):
        if plain.get(name) is not None:
            plain[name.replace("_us", "_at")] = from_us(plain[name]).isoformat()
    return plain


def _bounded(limit: int) -> int:
    if not 1 <= limit <= _LIMIT:
        raise InvalidInput(f"limit is {limit}: choose 1 to {_LIMIT}")
    return limit


def _dataset(request: Any) -> str:
    return f"dataset:{request.dataset}"


OPERATIONS: Final = (
    Operation(name="data.ingest", action="data.ingest", request=DataIngest, handle=_ingest, resource=_dataset, summary="Bring new records in, judged by the data gate"),
    Operation(name="data.list", action="data.list", request=Nothing, handle=_list, resource=lambda _request: "dataset:any", reads=True, summary="List datasets"),
    Operation(name="data.show", action="data.list", request=DataShow, handle=_show, resource=_dataset, reads=True, summary="Show a snapshot"),
    Operation(name="data.history", action="data.list", request=DataHistory, handle=_history, resource=_dataset, reads=True, summary="List snapshots of a dataset"),
    Operation(name="data.diff", action="data.list", request=DataDiff, handle=_diff, resource=_dataset, reads=True, summary="Say what differs between two snapshots"),
    Operation(name="data.rollback", action="data.rollback", request=DataRollback, handle=_rollback, resource=_dataset, summary="Make an earlier snapshot the current one"),
    Operation(name="data.quarantine", action="data.read", request=DataQuarantine, handle=_quarantine, resource=_dataset, reads=True, summary="List records that were set aside"),
    Operation(name="data.repair", action="data.repair", request=DataRepair, handle=_repair, resource=_dataset, summary="Mend a record that was set aside"),
    Operation(name="data.replay", action="data.repair", request=DataReplay, handle=_replay, resource=_dataset, summary="Put repaired records before the gate again"),
    Operation(name="data.discard", action="data.repair", request=DataDiscard, handle=_discard, resource=_dataset, summary="Give up records that were set aside"),
)  # fmt: skip
