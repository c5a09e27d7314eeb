"""Operations that read training runs; training is a story and lies beside them."""

from __future__ import annotations

from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.entrypoints.operations.operation import (
    Caller,
    Json,
    Operation,
    Platform,
    Progress,
    Request,
    to_json,
)


class RunList(Request, frozen=True):
    model: str | None = None
    limit: int = 50


class RunShow(Request, frozen=True):
    run: str


class RunSeries(Request, frozen=True):
    """name: of one metric; all when null."""

    run: str
    name: str | None = None


class RunCompare(Request, frozen=True):
    one: str
    other: str


def _list(platform: Platform, _caller: Caller, request: RunList, _progress: Progress) -> Json:
    if not 1 <= request.limit <= 10_000:
        raise InvalidInput(f"limit is {request.limit}: choose 1 to 10000")
    runs = platform.training.list(model=request.model, limit=request.limit)
    return {"runs": [_summary(run) for run in runs]}


def _summary(run: Any) -> Json:
    return {
        "run": run.id,
        "model": run.model,
        "state": str(run.state),
        "started_at": to_json(run.started_at),
        "seconds": run.seconds,
        "metrics": {} if run.report is None else run.report.metrics,
        "error": run.error,
        "actor": run.actor,
    }


def _show(platform: Platform, _caller: Caller, request: RunShow, _progress: Progress) -> Json:
    run = platform.training.get(request.run)
    report = run.report
    found: Json = {
        **_summary(run),
        "ended_at": to_json(run.ended_at),
        "params": run.params,
        "seed": run.seed,
        "snapshots": dict(run.data.snapshots),
        "features": [joined.materialisation for joined in run.data.features],
        "rows": run.data.table.rows,
        "code": to_json(run.code),
        "environment": run.environment,
        "reproduces": run.reproduces,
        "ended_as": run.ended_as,
        "isolation": list(run.isolation),
        "cpu_seconds": run.cpu_seconds,
        "peak_memory_bytes": run.peak_memory_bytes,
        "artifacts": {artifact.name: artifact.digest for artifact in run.artifacts},
        "log": platform.training.log(run.id),
    }
    if report is not None:
        found |= {
            "own_metrics": report.own_metrics,
            "baselines": report.baselines,
            "split": to_json(report.split),
            "model_kind": report.model_kind,
            "hardware": to_json(report.environment),
            "checks": to_json(report.checks),
        }
    return found


def _series(platform: Platform, _caller: Caller, request: RunSeries, _progress: Progress) -> Json:
    return {"run": request.run, "points": to_json(platform.training.series(request.run, name=request.name))}


def _compare(platform: Platform, _caller: Caller, request: RunCompare, _progress: Progress) -> Json:
    found = platform.training.compare(request.one, request.other)
    return {"one": request.one, "other": request.other, "differences": to_json(found)}


def _run(request: Any) -> str:
    return f"run:{request.run}"


OPERATIONS: Final = (
    Operation(name="run.list", action="run.read", request=RunList, handle=_list, resource=lambda request: f"model:{request.model or 'any'}", reads=True, summary="List training runs"),
    Operation(name="run.show", action="run.read", request=RunShow, handle=_show, resource=_run, reads=True, summary="Show a run whole"),
    Operation(name="run.series", action="run.read", request=RunSeries, handle=_series, resource=_run, reads=True, summary="Show what a run's code logged"),
    Operation(name="run.compare", action="run.read", request=RunCompare, handle=_compare, resource=lambda request: f"run:{request.one}", reads=True, summary="Say what differs between two runs"),
)  # fmt: skip
