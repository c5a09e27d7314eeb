"""The decorators `@taut.features` and `@taut.model`: they note a declaration and give the function back as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from taut.core.evidence import Scalar
from taut.project.datasets import Dataset
from taut.project.manifest import GateSpec, ResourcesSpec, RetrainingSpec, SplitSpec, TriggerSpec
from taut.project.pipelines import ATTRIBUTE, declare_features, declare_model
from taut.project.rules import Approval
from taut.project.words import worded

F = TypeVar("F", bound=Callable[..., Any])


@worded("features")
def features(
    name: str,
    *,
    entity: str | Sequence[str],
    event_time: str,
    sources: Sequence[Dataset],
    max_age: str | None = None,
    online: bool = False,
    description: str = "",
) -> Callable[[F], F]:
    """Declare a feature set: one definition for training (point-in-time join) and serving (online lookup).

    The function takes one `polars.LazyFrame` for each source, in their order, and returns one that holds the `entity`
    columns, `event_time` (when the values were true) and the features.
    entity: columns that name what a row is about. max_age: older values are not used, for example `3h`.
    online: also keep the latest row of each entity for serving.
    """

    def decorate(function: F) -> F:
        declaration = declare_features(
            name,
            entity=entity,
            event_time=event_time,
            sources=sources,
            max_age=max_age,
            online=online,
            description=description,
            function=function,
        )
        setattr(function, ATTRIBUTE, declaration)
        return function

    return decorate


@worded("model")
def model(
    name: str,
    *,
    dataset: Dataset,
    request: Sequence[str],
    label: str,
    features: Sequence[Callable[..., Any]] = (),
    on: Mapping[str, str] | None = None,
    label_at: str | None = None,
    split: SplitSpec | None = None,
    triggers: Sequence[TriggerSpec] = (),
    retraining: RetrainingSpec | None = None,
    gates: Sequence[GateSpec] = (),
    approval: Approval | None = None,
    resources: ResourcesSpec | None = None,
    params: Mapping[str, Scalar] | None = None,
    risk: str = "medium",
    seed: int = 0,
    description: str = "",
) -> Callable[[F], F]:
    """Declare a model: the decorated function takes a `taut.TrainContext` and returns a `taut.Trained`.

    request: what a caller knows; every other input must be a feature. features: functions that `@taut.features`
    decorates. on: request column -> entity column of a feature set, where their names differ. label_at: the column
    with the time at which the label became known; rows not yet known at the split are kept out of training.
    """

    terms = {
        "dataset": dataset,
        "request": request,
        "label": label,
        "features": features,
        "on": on,
        "label_at": label_at,
        "split": split,
        "triggers": triggers,
        "retraining": retraining,
        "gates": gates,
        "approval": approval,
        "resources": resources,
        "params": params,
        "risk": risk,
        "seed": seed,
        "description": description,
    }

    def decorate(function: F) -> F:
        declaration = declare_model(name, function, terms)
        setattr(function, ATTRIBUTE, declaration)
        return function

    return decorate
