"""What differs between two runs, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from taut.core.canonical import digest_json
from taut.lifecycle.training.values import Run


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not the same in two runs. what: code, lock, data, seed, library … and which."""

    what: str
    one: str
    other: str


class Reproduction(msgspec.Struct, frozen=True, kw_only=True):
    """What repeating a run showed. same: the new model has the very digest of the old one.

    differences: everything that differs, the result included; empty only when the repetition is the same in all.
    """

    original: str
    run: Run
    same: bool
    differences: tuple[Difference, ...]


def differences(one: Run, other: Run) -> tuple[Difference, ...]:
    """Return what differs in what two runs were given, where they ran and what came out, causes first."""
    found = [*_given(one, other), *_where(one, other), *_result(one, other)]
    return tuple(
        Difference(what=what, one=str(left), other=str(right)) for what, left, right in found if left != right
    )


def _given(one: Run, other: Run) -> Iterator[tuple[str, Any, Any]]:
    yield "code", one.code.bundle, other.code.bundle
    yield "lock", one.code.lock, other.code.lock
    yield "function", _function(one), _function(other)
    for name in sorted({*one.data.snapshots, *other.data.snapshots}):
        yield f"snapshot {name}", one.data.snapshots.get(name, "none"), other.data.snapshots.get(name, "none")
    features = [{item.name: item.materialisation for item in run.data.features} for run in (one, other)]
    yield from _each("features", *features)
    if one.data.digest != other.data.digest:
        rows = one.data.table.rows, other.data.table.rows
        yield "data", f"{one.data.digest} ({rows[0]:,} rows)", f"{other.data.digest} ({rows[1]:,} rows)"
    yield "declaration", _declaration(one), _declaration(other)
    yield "seed", one.seed, other.seed
    yield from _each("parameter", one.params, other.params)


def _where(one: Run, other: Run) -> Iterator[tuple[str, Any, Any]]:
    if one.report is None or other.report is None:
        return
    left, right = one.report.environment, other.report.environment
    yield "python", left.python, right.python
    yield from _each("library", left.libraries, right.libraries)
    for field in ("system", "machine", "processor", "threads"):
        yield f"hardware {field}", getattr(left, field), getattr(right, field)


def _result(one: Run, other: Run) -> Iterator[tuple[str, Any, Any]]:
    yield "state", one.state, other.state
    yield "result", one.model_digest, other.model_digest
    if one.report is not None and other.report is not None:
        yield from _each("metric", one.report.metrics, other.report.metrics)


def _each(what: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*one, *other}):
        yield f"{what} {name}", one.get(name, "none"), other.get(name, "none")


def _function(run: Run) -> str:
    return f"{run.spec.function.module}:{run.spec.function.qualname}"


def _declaration(run: Run) -> str:
    spec = run.spec
    return digest_json([spec.label, spec.label_at, spec.request, spec.features, spec.split])
