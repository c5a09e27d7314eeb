"""Operations that read the feature store; computing is a story's step and lies beside them."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import InvalidInput
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


class FeaturesShow(Request, frozen=True):
    features: str


def _show(platform: Platform, _caller: Caller, request: FeaturesShow, _progress: Progress) -> Json:
    made = platform.features.materialisation(request.features)
    online = platform.features.online_state(request.features)
    return {**summary(made), "online": None if online is None else to_json(online)}


class FeaturesSkew(Request, frozen=True):
    """sample: how many entities to compare."""

    features: str
    sample: int = 1000


def _skew(platform: Platform, _caller: Caller, request: FeaturesSkew, progress: Progress) -> Json:
    if not 1 <= request.sample <= 1_000_000:
        raise InvalidInput(f"sample is {request.sample}: choose 1 to 1000000")
    progress(f"comparing {request.features} online with what training gets", None)
    report = platform.features.check_skew(request.features, platform.online, sample=request.sample)
    return {"features": request.features, "ok": report.agrees, **to_json(report)}


def _list(platform: Platform, _caller: Caller, _request: Nothing, _progress: Progress) -> Json:
    names = platform.features.feature_sets()
    return {"features": [summary(platform.features.materialisation(name)) for name in names]}


def summary(made: Any) -> Json:
    """One computation of a feature set, without its files."""
    return {
        "features": made.spec.name,
        "version": made.id,
        "rows": made.rows,
        "entities": made.entities,
        "columns": list(made.features),
        "entity": list(made.spec.entity),
        "sources": dict(made.sources),
        "event_time_min": to_json(made.event_time_min),
        "event_time_max": to_json(made.event_time_max),
        "created_at": to_json(made.created_at),
        "created_by": made.created_by,
        "digest": made.digest,
    }


OPERATIONS: Final = (
    Operation(name="features.show", action="features.read", request=FeaturesShow, handle=_show, resource=lambda request: f"features:{request.features}", reads=True, summary="Show a feature set's newest computation, and what is online"),
    Operation(name="features.skew", action="features.read", request=FeaturesSkew, handle=_skew, resource=lambda request: f"features:{request.features}", reads=True, summary="Compare online values with what training gets"),
    Operation(name="features.list", action="features.read", request=Nothing, handle=_list, resource=lambda _request: "features:any", reads=True, summary="List feature sets that were computed"),
)  # fmt: skip
