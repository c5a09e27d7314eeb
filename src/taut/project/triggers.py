"""Declaring when a model is trained anew, and within which bounds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from taut.core.cron import Cron, zone_of
from taut.core.errors import InvalidInput
from taut.core.units import parse_duration
from taut.project import words
from taut.project.datasets import Dataset
from taut.project.manifest import ColumnSpec, ModelSpec, RetrainingSpec, TriggerSpec
from taut.project.words import nearest, worded

_MANY: Final = 10**12
_WINDOW: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]", re.ASCII)
_DEEP: Final = 3


@worded("on_new_data")
def on_new_data(dataset: Dataset, *, rows: int = 1) -> TriggerSpec:
    """Train when so many rows were ingested, of snapshots that the data gate admitted, since the last run learned."""
    if not isinstance(dataset, Dataset):
        raise InvalidInput(
            f"on_new_data: {dataset!r} is no dataset: name it as an object, on_new_data(flights)"
        )
    count = words.whole(rows, "on_new_data: rows", low=1, high=_MANY)
    return TriggerSpec(kind="new_data", dataset=dataset.name, count=count)


@worded("on_drift")
def on_drift() -> TriggerSpec:
    """Train when what the live version is asked or says is surely farther from training than its endpoint tolerates."""
    return TriggerSpec(kind="drift")


@worded("on_quality")
def on_quality() -> TriggerSpec:
    """Train when outcomes say that the live version is wrong more often than its endpoint tolerates."""
    return TriggerSpec(kind="quality")


@worded("on_feedback")
def on_feedback(outcomes: int) -> TriggerSpec:
    """Train when so many answers got an outcome since the last run; those that are in doubt do not count."""
    return TriggerSpec(
        kind="feedback", count=words.whole(outcomes, "on_feedback: outcomes", low=1, high=_MANY)
    )


@worded("cron")
def cron(schedule: str, *, zone: str = "UTC") -> TriggerSpec:
    """Train at these times: minute, hour, day, month, weekday, each `*`, numbers, ranges or steps; by the clocks of `zone`."""
    Cron(words.text(schedule, "cron: schedule"), words.text(zone, "cron: zone"))
    return TriggerSpec(kind="cron", schedule=schedule, zone=zone)


@worded("all_of")
def all_of(*triggers: TriggerSpec) -> TriggerSpec:
    """Train when all of them say so; with a time among them, when the others say so at that time."""
    return TriggerSpec(kind="all", of=_several(triggers, "all_of"))


@worded("any_of")
def any_of(*triggers: TriggerSpec) -> TriggerSpec:
    """Train when one of them says so, as the list itself means; for use in `all_of`."""
    return TriggerSpec(kind="any", of=_several(triggers, "any_of"))


@worded("Retraining")
def Retraining(  # noqa: N802 - a value's name
    *,
    settle: str = "10m",
    runs_per_day: int = 4,
    cpu_hours_per_day: float | None = None,
    window: str | None = None,
    zone: str = "UTC",
    release: bool = True,
    contributor: str | None = None,
    share: float = 1.0,
) -> RetrainingSpec:
    """What holds of runs that triggers start.

    settle: how long what else comes is waited for. runs_per_day, cpu_hours_per_day: of the last 24 hours. window: hours of
    the day at which they may begin, "22:00-06:00", by the clocks of `zone`. release: whether an admitted version is released to the model's endpoints,
    each by its strategy. contributor: column of the dataset that says who a row comes from; where more than `share` of
    the new rows come from one, nothing is trained. Outcomes are bounded by it too, by who told of them.
    """
    if window is not None and not _WINDOW.fullmatch(words.text(window, "Retraining: window")):
        raise InvalidInput(f"Retraining: window is {window!r}: write hours of the day, '22:00-06:00'")
    if not isinstance(release, bool):
        raise InvalidInput(f"Retraining: release is {release!r}: write True or False")
    zone_of(words.text(zone, "Retraining: zone"))
    hours = words.optional_number(cpu_hours_per_day, "Retraining: cpu_hours_per_day", low=0.001, high=1e6)
    return RetrainingSpec(
        settle=words.duration(settle, "Retraining: settle"),
        runs_per_day=words.whole(runs_per_day, "Retraining: runs_per_day", low=1, high=1000),
        cpu_hours_per_day=hours, window=window, zone=zone, release=release,
        contributor=words.optional_text(contributor, "Retraining: contributor"),
        share=float(words.number(share, "Retraining: share", low=0.01, high=1)),
    )  # fmt: skip


def trigger_faults(
    model: ModelSpec, datasets: Collection[str], columns: Mapping[str, ColumnSpec]
) -> Iterator[str]:
    """Yield what is wrong with a model's triggers. Pure, so that the plan gate repeats it on what it was sent.

    datasets: those of the project. columns: of the model's own, by name.
    """
    for trigger in leaves(model.triggers):
        if trigger.dataset is not None and trigger.dataset not in datasets:
            yield f"a trigger names dataset {trigger.dataset!r}{nearest(trigger.dataset, datasets)}"
        if trigger.kind == "cron":
            try:
                Cron(trigger.schedule or "", trigger.zone)
            except InvalidInput as error:
                yield f"a trigger: {error}"
    rules = model.retraining
    if rules.contributor is not None:
        column = columns.get(rules.contributor)
        if column is None:
            yield f"retraining: contributor names column {rules.contributor!r}{nearest(rules.contributor, columns)}"
        elif column.personal in ("seal", "redact"):
            yield f"retraining: contributor {column.name!r} is stored so that nobody can tell one from another: tokenise it"
    if rules.window is not None and not _WINDOW.fullmatch(rules.window):
        yield f"retraining: window is {rules.window!r}: write hours of the day, '22:00-06:00'"
    try:
        zone_of(rules.zone)
        parse_duration(rules.settle)
    except InvalidInput as error:
        yield f"retraining: {error}"


def leaves(triggers: Iterable[TriggerSpec], *, depth: int = 0) -> Iterator[TriggerSpec]:
    """Yield the triggers that look at something, also those inside `all` and `any`. Raises InvalidInput beyond three levels."""
    for trigger in triggers:
        if trigger.kind not in ("all", "any"):
            yield trigger
        elif depth == _DEEP:
            raise InvalidInput(f"triggers are nested in more than {_DEEP} levels: write them plainer")
        else:
            yield from leaves(trigger.of, depth=depth + 1)


def _several(triggers: tuple[TriggerSpec, ...], what: str) -> tuple[TriggerSpec, ...]:
    found = words.instances(triggers, TriggerSpec, what, "write taut.on_drift(), taut.cron('0 3 * * *')")
    if len(found) < 2:
        raise InvalidInput(f"{what}: {len(found)} triggers are too few: name two or more")
    tuple(leaves([TriggerSpec(kind="any", of=found)]))
    return found
