"""Declaring code: feature sets and models, as decorators that leave the function a plain function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.project import words
from taut.project.datasets import Dataset
from taut.project.declare import declare
from taut.project.manifest import (
    FeaturesSpec,
    FunctionRef,
    GateSpec,
    ModelSpec,
    ResourcesSpec,
    RetrainingSpec,
    SplitSpec,
    TriggerSpec,
)
from taut.project.rules import Approval

Function = Callable[..., Any]

ATTRIBUTE: Final = "__taut__"
"""Where a decorated function carries its declaration."""


class FeatureSet:
    """A feature set as declared: the function and what it promises."""

    def __init__(self, spec: FeaturesSpec, function: Function, sources: tuple[Dataset, ...]) -> None:
        self.spec = spec
        self.function = function
        self.sources = sources
        self.name = spec.name
        self.place = declare("feature set", spec.name, self)


class Model:
    """A model as declared: its training function, its data and its rules."""

    def __init__(
        self, spec: ModelSpec, function: Function, dataset: Dataset, features: tuple[FeatureSet, ...]
    ) -> None:
        self.spec = spec
        self.function = function
        self.dataset = dataset
        self.features = features
        self.name = spec.name
        self.place = declare("model", spec.name, self)


def declare_features(
    name: str,
    *,
    entity: str | Sequence[str],
    event_time: str,
    sources: Sequence[Dataset],
    max_age: str | None,
    online: bool,
    description: str,
    function: Function,
) -> FeatureSet:
    """Build and declare a feature set; see `taut.features`."""
    what = f"feature set {name!r}"
    datasets = words.instances(
        sources, Dataset, f"{what}: sources", "name datasets as objects, sources=[weather]"
    )
    _check_arguments(function, len(datasets), what)
    spec = FeaturesSpec(
        name=words.name(name, "feature set"),
        entity=words.texts(entity, f"{what}: entity"),
        event_time=words.text(event_time, f"{what}: event_time"),
        sources=tuple(dataset.name for dataset in datasets),
        function=function_ref(function, what),
        max_age=words.optional_duration(max_age, f"{what}: max_age"),
        online=bool(online),
        description=description or _first_line(function),
    )
    if not spec.entity:
        raise InvalidInput(f"{what}: entity is empty: name the columns that say what a row is about")
    return FeatureSet(spec, function, datasets)


def declare_model(name: str, function: Function, terms: Mapping[str, Any]) -> Model:
    """Build and declare a model. terms: the arguments of `taut.model`, by their names."""
    what = f"model {name!r}"
    dataset = terms["dataset"]
    if not isinstance(dataset, Dataset):
        raise InvalidInput(f"{what}: dataset is {dataset!r}: name the dataset as an object, dataset=flights")
    sets = tuple(_feature_set(item, what) for item in words.instances(terms["features"], object, what, ""))
    _check_arguments(function, 1, what)
    spec = ModelSpec(
        name=words.name(name, "model"),
        dataset=dataset.name,
        function=function_ref(function, what),
        label=words.text(terms["label"], f"{what}: label"),
        request=words.texts(terms["request"], f"{what}: request"),
        features=tuple(item.name for item in sets),
        on=_on(terms["on"] or {}, what),
        label_at=words.optional_text(terms["label_at"], f"{what}: label_at"),
        params=_params(terms["params"] or {}, what),
        risk=words.one_of(terms["risk"], ("low", "medium", "high"), f"{what}: risk"),  # type: ignore[arg-type]  # checked
        seed=words.whole(terms["seed"], f"{what}: seed", low=0, high=2**32 - 1),
        description=terms["description"] or _first_line(function),
        **_rules(terms, what),
    )
    if not spec.request:
        raise InvalidInput(f"{what}: request is empty: name the columns that a caller knows")
    return Model(spec, function, dataset, sets)


def _rules(terms: Mapping[str, Any], what: str) -> dict[str, Any]:
    approval = _one(terms["approval"], Approval, f"{what}: approval", "taut.approval(1)") or Approval(count=0)
    split = _one(terms["split"], SplitSpec, f"{what}: split", "taut.by_time(test='30d')") or SplitSpec()
    resources = _one(terms["resources"], ResourcesSpec, f"{what}: resources", "taut.Resources(cpu=2)")
    rules = _one(terms["retraining"], RetrainingSpec, f"{what}: retraining", "taut.Retraining(settle='10m')")
    gates, triggers = f"{what}: gates", f"{what}: triggers"
    return {
        "split": split,
        "gates": words.instances(
            terms["gates"], GateSpec, gates, "write taut.metric(...), taut.no_regression(...)"
        ),
        "approvals": approval.count,
        "resources": resources or ResourcesSpec(),
        "triggers": words.instances(
            terms["triggers"], TriggerSpec, triggers, "write taut.on_new_data(dataset)"
        ),
        "retraining": rules or RetrainingSpec(),
    }


def declaration_of(thing: object) -> FeatureSet | Model | None:
    """Return what a decorated function declares, or None."""
    found = getattr(thing, ATTRIBUTE, None)
    return found if isinstance(found, FeatureSet | Model) else None


def function_ref(function: Function, what: str) -> FunctionRef:
    """Name a function so that a job can find it. Raises InvalidInput for one that a bundle cannot name."""
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", "")
    if not module or not qualname or "<" in qualname:
        raise InvalidInput(
            f"{what}: the function {qualname or function!r} has no name: define it at the top of a module"
        )
    return FunctionRef(module, qualname)


def _feature_set(item: object, what: str) -> FeatureSet:
    found = declaration_of(item)
    if isinstance(found, FeatureSet):
        return found
    shown = getattr(item, "__name__", repr(item))
    raise InvalidInput(
        f"{what}: features holds {shown}: name functions that @taut.features decorates, as objects"
    )


def _check_arguments(function: Function, count: int, what: str) -> None:
    import inspect

    if not callable(function):
        raise InvalidInput(f"{what}: decorates {function!r}: put it above a function")
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError as error:
        wanted = (
            "one argument for each of its sources, in their order"
            if "feature" in what
            else "one argument, ctx"
        )
        raise InvalidInput(
            f"{what}: the function {function.__name__} must take {wanted} ({error})"
        ) from error


def _on(value: object, what: str) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidInput(
            f'{what}: on is {value!r}: write {{"request column": "entity column of the feature set"}}'
        )
    return {words.text(key, f"{what}: on"): words.text(item, f"{what}: on") for key, item in value.items()}


def _params(value: object, what: str) -> dict[str, Scalar]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f'{what}: params is {value!r}: write {{"depth": 6}}')
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, bool | int | float | str | None):
            raise InvalidInput(
                f"{what}: params[{key!r}] is {item!r}: write a text, a number, True, False or None"
            )
    return dict(value)


def _one(value: object, kind: type, what: str, example: str) -> Any:
    if value is not None and not isinstance(value, kind):
        raise InvalidInput(f"{what} is {value!r}: write {example}")
    return value


def _first_line(function: Function) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]
