"""Operations of batch serving: score a dataset, look at results."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.core.refs import VersionRef, check_name
from taut.core.units import parse_duration
from taut.entrypoints.operations.operation import Caller, Json, Operation, Platform, Progress, Request

_TRIES_MAX: Final = 1000
_LIST_MAX: Final = 10_000


class BatchScore(Request, frozen=True):
    """target: an endpoint, a model, or a version of its model. dataset: or one of its snapshots. to: the result's name.

    chunk_rows: rows that are prepared, scored and kept together. max_rejected: share of rows that may be left out.
    max_age: how long the result counts as fresh, such as 24h; null for ever.
    """

    target: str
    dataset: str
    to: str
    chunk_rows: int | None = None
    max_rejected: float = 0.1
    max_age: str | None = None


class BatchList(Request, frozen=True):
    name: str | None = None
    limit: int = 50


class BatchShow(Request, frozen=True):
    """result: its name for the newest version, or NAME@NUMBER. rejects: also so many rows that were not scored."""

    result: str
    rejects: int = 0


class BatchGet(Request, frozen=True):
    """key: key column -> value; one value under "" where there is one key column, `_row_id` for a row's own id."""

    result: str
    key: dict[str, Scalar]
    limit: int = 100


def _score(platform: Platform, caller: Caller, request: BatchScore, progress: Progress) -> Json:
    from taut.workflows.batch import summary
    from taut.workflows.batch_pin import CHUNK_ROWS, Asked, pin_batch

    age_s = None if request.max_age is None else parse_duration(request.max_age).total_seconds()
    asked = Asked(
        target=request.target, dataset=request.dataset, to=request.to, max_age_s=age_s, actor=caller.principal.id,
        chunk_rows=CHUNK_ROWS if request.chunk_rows is None else request.chunk_rows,
        max_rejected=request.max_rejected,
    )  # fmt: skip
    batch = pin_batch(platform, asked)
    known = platform.results.of(batch.scored)
    if known is not None:
        return {**summary(known), "verdict": "admit", "reasons": [], "unchanged": True}
    story = _story(platform, batch)
    platform.stories.watch(story, progress)
    result: Json = platform.stories.result(story)
    return {**result, "unchanged": False, "story": story}


def _story(platform: Platform, batch: Any) -> str:
    """Start the story of this work, or find it: a command that was killed and is given again joins what it began.

    One that failed, or was refused, is over: the next attempt has a story of its own.
    """
    from taut.ports.stories import StoryState

    arguments = msgspec.to_builtins(batch)
    for attempt in range(_TRIES_MAX):
        story: str = platform.stories.start("batch", arguments, key=f"batch/{batch.work}/{attempt}")
        state = platform.stories.status(story).state
        if state not in (StoryState.FAILED, StoryState.CANCELLED, StoryState.DONE):
            return story
    raise InvalidInput(f"this batch failed {_TRIES_MAX} times: look at what it says, and name another result")


def _list(platform: Platform, _caller: Caller, request: BatchList, _progress: Progress) -> Json:
    if not 1 <= request.limit <= _LIST_MAX:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to {_LIST_MAX}")
    found = platform.results.list(name=request.name, limit=request.limit)
    return {"results": [_shown(platform, info) for info in found]}


def _show(platform: Platform, _caller: Caller, request: BatchShow, _progress: Progress) -> Json:
    if not 0 <= request.rejects <= _LIST_MAX:
        raise InvalidInput(f"rejects is {request.rejects}: choose 0 to {_LIST_MAX}")
    info = _named(platform, request.result)
    shown = _shown(platform, info)
    if request.rejects:
        rows = platform.results.rejects(info).head(request.rejects).collect().iter_rows(named=True)
        shown["rejects_shown"] = [_plain(row) for row in rows]
    return shown


def _get(platform: Platform, _caller: Caller, request: BatchGet, _progress: Progress) -> Json:
    info = _named(platform, request.result)
    found = platform.results.get(info, request.key, limit=request.limit)
    shown = _shown(platform, info)
    return {
        "result": shown["result"], "key": dict(request.key), "rows": [_plain(row) for row in found.rows],
        "rejects": [_plain(row) for row in found.rejects],
        **{name: shown[name] for name in ("version", "snapshot", "as_of", "max_age_s", "fresh")},
    }  # fmt: skip


def _named(platform: Platform, text: str) -> Any:
    name, at, _ = text.partition("@")
    if not at:
        return platform.results.show(check_name(name, what="result"))
    ref = VersionRef.parse(text)
    return platform.results.show(ref.name, ref.number)


def _shown(platform: Platform, info: Any) -> Json:
    from taut.workflows.batch import summary

    return {**summary(info), "fresh": info.fresh_at(platform.clock.now())}


def _plain(row: dict[str, Any]) -> Json:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}


def _target(request: Any) -> str:
    return f"endpoint:{request.target.partition('@')[0] or 'any'}"


def _result(request: Any) -> str:
    return f"result:{request.result.partition('@')[0] or 'any'}"


OPERATIONS: Final = (
    Operation(name="batch.score", action="batch.score", request=BatchScore, handle=_score, resource=_target, story=True, summary="Score a dataset with a model version"),
    Operation(name="batch.list", action="batch.read", request=BatchList, handle=_list, resource=lambda request: f"result:{request.name or 'any'}", reads=True, summary="List batch results"),
    Operation(name="batch.show", action="batch.read", request=BatchShow, handle=_show, resource=_result, reads=True, summary="Show a batch result"),
    Operation(name="batch.get", action="batch.read", request=BatchGet, handle=_get, resource=_result, reads=True, summary="Look up what a batch result says about a key"),
)  # fmt: skip
