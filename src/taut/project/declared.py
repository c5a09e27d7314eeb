"""Finding what a project declares, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from taut.core.errors import NotFound
from taut.project.manifest import (
    DatasetSpec,
    EndpointSpec,
    FeaturesSpec,
    GraphSpec,
    Manifest,
    ModelSpec,
)
from taut.project.words import nearest

T = TypeVar("T")


def dataset_of(manifest: Manifest, name: str) -> DatasetSpec:
    return _named(manifest.datasets, name, "dataset")


def features_of(manifest: Manifest, name: str) -> FeaturesSpec:
    return _named(manifest.features, name, "feature set")


def model_of(manifest: Manifest, name: str) -> ModelSpec:
    return _named(manifest.models, name, "model")


def graph_of(manifest: Manifest, name: str) -> GraphSpec:
    return _named(manifest.graphs, name, "graph")


def judged_of(manifest: Manifest, name: str) -> ModelSpec | GraphSpec | None:
    """Return what is versioned and released under a name: a model or a graph; None where nothing is."""
    return next((spec for spec in judged_specs(manifest) if spec.name == name), None)


def judged_specs(manifest: Manifest) -> tuple[ModelSpec | GraphSpec, ...]:
    """Return all that is versioned, judged and released: models and graphs."""
    found: tuple[ModelSpec | GraphSpec, ...] = (*manifest.models, *manifest.graphs)
    return found


def endpoint_of(manifest: Manifest, name: str) -> EndpointSpec:
    return _named(manifest.endpoints, name, "endpoint")


def _named(specs: Sequence[T], name: str, what: str) -> T:
    found: dict[str, Any] = {getattr(spec, "name"): spec for spec in specs}  # noqa: B009 - T has no common base
    if name not in found:
        raise NotFound(f"the project has no {what} {name!r}{nearest(name, found)}")
    spec: T = found[name]
    return spec
