"""Service levels as OpenSLO v1 YAML, both ways: https://github.com/OpenSLO/OpenSLO.

A document of kind `SLO` is one objective of one service, which is an endpoint. What taut counts for it stands in the annotation
`taut-objective` of its indicator, with `taut-limit` where there is a limit; the queries say the same to tools that ask Prometheus.
What taut cannot keep is refused when the file is read, never skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project import rules
from taut.project.manifest import SLOSpec
from taut.project.words import nearest
from taut.project.yaml_files import documents, dump, read_text

API_VERSION: Final = "openslo/v1"
EVENTS: Final = "taut_slo_events_total"
BAD: Final = "taut_slo_bad_total"
"""Counters by endpoint and objective, as control shows them to Prometheus."""
TARGETS: Final = {"latency": 0.95, "latency_p99": 0.99, "freshness": 0.99}
"""What is promised of objectives that are declared by their limit."""
_OBJECTIVE: Final = "taut-objective"
_LIMIT: Final = "taut-limit"
_FREEZE: Final = "taut-freeze"
_WORDS: Final = {"latency": "latency_p95_ms", "latency_p99": "latency_p99_ms", "freshness": "freshness"}
_NAMES: Final = ("availability", "latency", "latency_p99", "live", "quality", "drift", "freshness")


class _Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    displayName: str = ""  # noqa: N815 - OpenSLO's word, like those below
    labels: dict[str, str | list[str]] = {}
    annotations: dict[str, str] = {}


class _Indicator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    metadata: _Metadata
    spec: dict[str, Any] = {}


class _Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    duration: str
    isRolling: bool = False  # noqa: N815
    calendar: Any = None


class _Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    displayName: str = ""  # noqa: N815
    target: float | None = None
    targetPercent: float | None = None  # noqa: N815


class _Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service: str
    budgetingMethod: str  # noqa: N815
    objectives: list[_Target]
    description: str = ""
    indicator: _Indicator | None = None
    indicatorRef: str | None = None  # noqa: N815
    timeWindow: list[_Window] = []  # noqa: N815
    alertPolicies: list[Any] = []  # noqa: N815


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    apiVersion: str  # noqa: N815
    kind: str
    metadata: _Metadata
    spec: dict[str, Any]


def read_openslo(path: Path, endpoint: str) -> SLOSpec:
    """Read what a file says about an endpoint. Raises NotFound for an absent file, InvalidInput for what taut cannot keep."""
    try:
        return parse_openslo(read_text(path, "file of service levels"), endpoint)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def parse_openslo(text: str, endpoint: str) -> SLOSpec:
    """Parse what documents of kind `SLO` say about a service of that name; those about other services stand for themselves."""
    found = [
        _as(_Document, one, "document")
        for one in documents(text, "file of service levels")
        if one is not None
    ]
    for one in found:
        if one.apiVersion != API_VERSION:
            raise InvalidInput(f"apiVersion is {one.apiVersion!r}: taut reads {API_VERSION}")
    indicators = {one.metadata.name: one for one in found if one.kind == "SLI"}
    specs = [
        (one.metadata, _as(_Spec, one.spec, f"SLO {one.metadata.name}")) for one in found if one.kind == "SLO"
    ]
    about = [(metadata, spec) for metadata, spec in specs if spec.service == endpoint]
    if not about:
        services = {spec.service for _, spec in specs}
        raise InvalidInput(f"there is no SLO of service {endpoint!r}{nearest(endpoint, services)}")
    found_words: dict[str, Any] = {}
    common: dict[str, set[Any]] = {"window": set(), "freeze": set()}
    for metadata, spec in about:
        where = f"SLO {metadata.name}"
        word, value = _promise(where, spec, _indicator_of(where, spec, indicators))
        if word in found_words:
            raise InvalidInput(f"{where}: {word} of {endpoint} is there twice")
        found_words[word] = value
        common["window"].add(_window_of(where, spec))
        common["freeze"].add(metadata.annotations.get(_FREEZE, "false") == "true")
    for word, values in common.items():
        if len(values) > 1:
            raise InvalidInput(f"the SLOs of {endpoint} differ in {word}: taut keeps one for an endpoint")
        found_words[word] = values.pop()
    return rules.SLO(**found_words)


def write_openslo(spec: SLOSpec, endpoint: str) -> str:
    """Return what an endpoint promises as YAML that `parse_openslo` reads back to the same."""
    return dump(*_written(spec, endpoint))


def _written(spec: SLOSpec, endpoint: str) -> Iterator[dict[str, Any]]:
    for name in _NAMES:
        value = getattr(spec, _WORDS.get(name, name))
        if value is None:
            continue
        limit = value if name == "freshness" else f"{value}ms" if name in TARGETS else None
        own = {_OBJECTIVE: name} | ({} if limit is None else {_LIMIT: str(limit)})
        yield {
            "apiVersion": API_VERSION, "kind": "SLO",
            "metadata": {"name": f"{endpoint}-{name}".replace("_", "-"), "annotations": {_FREEZE: str(spec.freeze).lower()}},
            "spec": {
                "service": endpoint,
                "indicator": {
                    "metadata": {"name": f"{endpoint}-{name}-events".replace("_", "-"), "annotations": own},
                    "spec": {
                        "ratioMetric": {
                            "counter": True, "bad": _source(BAD, endpoint, name), "total": _source(EVENTS, endpoint, name),
                        },
                    },
                },
                "timeWindow": [{"duration": spec.window, "isRolling": True}],
                "budgetingMethod": "Occurrences",
                "objectives": [{"target": TARGETS.get(name, value)}],
            },
        }  # fmt: skip


def _source(metric: str, endpoint: str, name: str) -> dict[str, Any]:
    query = f'sum({metric}{{endpoint="{endpoint}", objective="{name}"}})'
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}


def _as(kind: Any, value: Any, where: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"{where}: {error}") from error


def _indicator_of(where: str, spec: _Spec, indicators: dict[str, _Document]) -> _Metadata:
    """Return what says what is counted: the SLI inside, or one of the file that is referred to."""
    if (spec.indicator is None) == (spec.indicatorRef is None):
        raise InvalidInput(f"{where}: write one of indicator and indicatorRef")
    if spec.indicator is not None:
        return spec.indicator.metadata
    name = str(spec.indicatorRef)
    if name not in indicators:
        raise InvalidInput(f"{where}: no SLI {name!r} in this file{nearest(name, indicators)}")
    return indicators[name].metadata


def _promise(where: str, spec: _Spec, indicator: _Metadata) -> tuple[str, Any]:
    """Return the word of `taut.SLO` that a document stands for, and its value."""
    name = indicator.annotations.get(_OBJECTIVE, "")
    if name not in _NAMES:
        raise InvalidInput(
            f"{where}: taut counts by itself and asks no query: name one of {', '.join(_NAMES)} in the annotation {_OBJECTIVE} of its indicator"
        )
    if spec.budgetingMethod != "Occurrences":
        raise InvalidInput(f"{where}: budgetingMethod is {spec.budgetingMethod!r}: taut counts Occurrences")
    if spec.alertPolicies:
        raise InvalidInput(
            f"{where}: taut alerts by rules of its own (docs/how-to/set-slos.md): leave alertPolicies out"
        )
    if len(spec.objectives) != 1:
        raise InvalidInput(f"{where}: {len(spec.objectives)} objectives: write one in a document")
    target = _target_of(where, spec.objectives[0])
    limit = indicator.annotations.get(_LIMIT)
    if (limit is None) == (name in TARGETS):
        raise InvalidInput(
            f"{where}: {name} takes {'a' if name in TARGETS else 'no'} limit, in the annotation {_LIMIT}"
        )
    if name not in TARGETS:
        return name, target
    if target != TARGETS[name]:
        raise InvalidInput(f"{where}: the target of {name} is {target:g}: taut keeps {TARGETS[name]:g}")
    if name != "freshness":
        return _WORDS[name], _milliseconds(where, str(limit))
    return _WORDS[name], limit


def _milliseconds(where: str, limit: str) -> float:
    try:
        return (
            float(limit.removesuffix("ms"))
            if limit.endswith("ms")
            else parse_duration(limit).total_seconds() * 1_000
        )
    except ValueError as error:
        raise InvalidInput(f"{where}: {_LIMIT} is {limit!r}: write for example 20ms") from error


def _target_of(where: str, target: _Target) -> float:
    if (target.target is None) == (target.targetPercent is None):
        raise InvalidInput(f"{where}: write one of target and targetPercent")
    return target.target if target.target is not None else round(float(target.targetPercent or 0.0) / 100, 12)


def _window_of(where: str, spec: _Spec) -> str:
    if (
        len(spec.timeWindow) != 1
        or not spec.timeWindow[0].isRolling
        or spec.timeWindow[0].calendar is not None
    ):
        raise InvalidInput(f"{where}: taut keeps one rolling timeWindow: write duration and isRolling: true")
    return spec.timeWindow[0].duration
