"""The demo's model on the month after its training: better than a constant and than its best single input, without
a column that is unknown when the flight is asked about."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import polars as pl

from benchmarks.demo_run import demo_run

if TYPE_CHECKING:
    from benchmarks.report import Report

MONTH: Final = 11
RESAMPLES: Final = 200
HOURS_CHECKED: Final = 24
# What a timetable says of a flight that has not left; everything else must come from a feature set.
KNOWN_BEFORE: Final = frozenset({"carrier", "origin", "dest", "distance", "departs_minute", "weekday"})


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The month's flights with what was known at their hour. before: the flights of earlier months, the same way."""

    month: pl.DataFrame
    before: pl.DataFrame
    loaded: Any  # taut.lifecycle.registry.Loaded
    event_time: str
    label: str


def run(report: Report) -> None:
    from taut.bootstrap.platform import open_platform

    demo = demo_run()
    with open_platform(demo.home, environ={}) as platform:
        asked = _asked(platform)
        assert_inputs_are_known(asked)
        compared = assert_computed_from_the_past(
            _feature_function(demo.folder / "project" / "taut.py", "congestion"),
            platform.data.scan(platform.data.show("flights").ref).collect(),
            asked.month,
        )
        _score(report, asked, compared)


def _asked(platform: Any) -> Asked:
    """Join the pinned feature sets of the live version to all flights, each at its own hour."""
    from taut.core.refs import VersionRef
    from taut.entrypoints.demo.data import find_files, read_flights
    from taut.lifecycle.features import JoinedFeatures
    from taut.project.declared import dataset_of, model_of

    manifest = platform.plans.require()
    spec = model_of(manifest, "delay")
    event_time = dataset_of(manifest, spec.dataset).event_time
    assert event_time is not None
    with platform.records.read() as tx:
        version: VersionRef = next(
            route.version for route in platform.releases.routes(tx) if route.endpoint == "delay"
        )
    current = platform.data.show(spec.dataset)
    # The newest materialisations: the replay built them with the month's own flights, as the years would.
    joined = [
        JoinedFeatures(materialisation=platform.features.materialisation(name), on=spec.on)
        for name in spec.features
    ]
    frame = platform.features.training_frame(
        platform.data.scan(current.ref).collect(), event_time, joined, event_times=True
    )
    raw = read_flights(find_files())
    ids = raw.filter(pl.col("month") == MONTH)
    month = frame.join(ids.select("flight_id"), on="flight_id", how="semi")
    known = ids.filter(pl.col("late").is_not_null() & pl.col("arrived_at").is_not_null()).height
    assert month.height == known, f"{month.height} flights of the month are there, {known} have an outcome"
    first = month[event_time].min()
    return Asked(
        month=month, before=frame.filter(pl.col(event_time) < first), loaded=platform.registry.load(version),
        event_time=event_time, label=spec.label,
    )  # fmt: skip


def assert_inputs_are_known(asked: Asked) -> None:
    """Raise AssertionError when an input is neither on the timetable nor a feature of the flight's hour or before."""
    signature = asked.loaded.signature
    request = {column.name for column in signature.request}
    keys = {key for lookup in signature.lookups for key in lookup.keys}
    asking = request - {signature.event_time}
    assert asking <= KNOWN_BEFORE, f"the request asks for {sorted(asking - KNOWN_BEFORE)}"
    assert keys <= KNOWN_BEFORE, f"features are looked up by {sorted(keys - KNOWN_BEFORE)}"
    for item in signature.inputs:
        name, feature_set = item.column.name, item.feature_set
        assert name != asked.label, "the label is an input"
        assert feature_set is not None or name in KNOWN_BEFORE, f"input {name} is unknown before departure"
    for lookup in signature.lookups:
        column, hour = pl.col(f"_event_time_{lookup.feature_set}"), pl.col(asked.event_time)
        late = asked.month.filter(column > hour).height
        assert late == 0, f"{late} flights have {lookup.feature_set} from after their hour"
        if lookup.max_age_s is not None:
            old = asked.month.filter((hour - column).dt.total_seconds() > lookup.max_age_s).height
            assert old == 0, f"{old} flights have {lookup.feature_set} from before its maximum age"


def assert_computed_from_the_past(
    function: Callable[[pl.LazyFrame], pl.LazyFrame],
    flights: pl.DataFrame,
    month: pl.DataFrame,
    *,
    hours: int = HOURS_CHECKED,
) -> int:
    """Compute `congestion` again for some hours from only the flights that had arrived by then, and compare.

    This is what the point-in-time join cannot know: whether a feature function itself looks ahead. Returns how many
    values were compared; raises AssertionError when one differs.
    """
    asked_at = month["hour_at"].unique().sort()
    compared = 0
    for hour in asked_at.gather_every(max(1, asked_at.len() // hours)):
        known = flights.filter(pl.col("arrived_at") <= hour)
        again = function(known.lazy()).filter(pl.col("known_at") <= hour).collect()
        used = month.filter(pl.col("hour_at") == hour).unique("origin")
        used = used.filter(pl.col("_event_time_congestion").is_not_null())
        both = used.join(
            again,
            left_on=["origin", "_event_time_congestion"],
            right_on=["origin", "known_at"],
            suffix="_again",
        )
        assert both.height == used.height, f"at {hour} a feature stands on flights that had not arrived"
        for name in ("late_share", "mean_delay"):
            apart = both.filter((pl.col(name) - pl.col(f"{name}_again")).abs() > 1e-9).height
            assert apart == 0, f"at {hour}, {name} knew of flights that had not arrived"
        compared += 2 * both.height
    assert compared > 0, "no feature value could be compared"
    return compared


def _feature_function(path: Any, name: str) -> Callable[[pl.LazyFrame], pl.LazyFrame]:
    """Return the plain function of a feature set of the demo's project file."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("demo_project", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[pl.LazyFrame], pl.LazyFrame] = getattr(module, name)
    return found


def _probabilities(asked: Asked) -> Any:
    """Score the month as a batch does, in this process."""
    from taut.serving.batch.frames import read_tensors, write_chunk
    from taut.serving.runtime import load

    signature = asked.loaded.signature
    model = load(asked.loaded.model, signature)
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        path = Path(folder) / "month.arrow"
        write_chunk(path, asked.month, signature)
        feed, unfit = read_tensors(model, path)
    assert not unfit.any(), f"{unfit.sum()} flights do not fit the types of the model"
    return model.raw(feed)[:, 1]


def _score(report: Report, asked: Asked, compared: int) -> None:
    signature = asked.loaded.signature
    truth = asked.month[asked.label].to_numpy()
    probabilities = _probabilities(asked)
    model = _auc(truth, probabilities)
    singles = {item.column.name: _auc(truth, _alone(asked, item.column.name)) for item in signature.inputs}
    best = max(singles, key=lambda name: singles[name])
    low, high = _interval(asked, truth, probabilities)
    flights = f"{truth.size:,} flights, {truth.mean():.1%} late"
    report.figure(
        "demo: AUC of the following month", [model], "", wanted=f"> {singles[best]:.4f}, the best single input",
        note=f"{flights}; 95% by resampling days {low:.3f} to {high:.3f}",
    )  # fmt: skip
    report.figure("demo: AUC of a constant", [_auc(truth, np.zeros(truth.size))], "")
    report.figure(
        f"demo: AUC of the best single input, {best}", [singles[best]], "",
        note="each input alone by its late share in 50 bins of the months before; the best is chosen on the month itself",
    )  # fmt: skip
    gain = 1 - _log_loss(truth, probabilities) / _log_loss(
        truth, np.full(truth.size, asked.before[asked.label].mean())
    )
    report.figure(
        "demo: log loss saved against the rate of the months before", [100 * gain], "%", wanted="> 0"
    )
    report.figure(
        "demo: inputs unknown when asked", [0], "", wanted="≤ 0",
        note=f"{len(signature.inputs)} inputs, each on the timetable or a feature of the hour or before; "
        f"{compared} feature values computed again from only what had landed",
    )  # fmt: skip


def _alone(asked: Asked, name: str) -> np.ndarray[Any, Any]:
    """Rank the month by one input: the share of late flights among its 50 bins, or words, of the months before."""
    rate = pl.col("late").mean().alias("rate")
    before = asked.before.select(name, late=pl.col(asked.label))
    asking = asked.month.select(name)
    if before[name].dtype != pl.String:
        values = before[name].cast(pl.Float64)
        edges = sorted({cut for share in range(1, 50) if (cut := values.quantile(share / 50)) is not None})
        before, asking = (
            frame.with_columns(pl.col(name).cast(pl.Float64).cut(edges).cast(pl.String))
            for frame in (before, asking)
        )
    rates = before.group_by(name).agg(rate)
    found = asking.join(rates, on=name, how="left", nulls_equal=True, maintain_order="left")["rate"]
    return found.fill_null(before["late"].mean()).to_numpy()


def _auc(truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def _log_loss(truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    clipped = np.clip(scores, 1e-9, 1 - 1e-9)
    return float(-np.mean(truth * np.log(clipped) + (1 - truth) * np.log(1 - clipped)))


def _interval(asked: Asked, truth: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the 95% interval of the AUC when whole days are drawn again: flights of one day are not independent."""
    random = np.random.default_rng(7)
    days = asked.month[asked.event_time].dt.date().to_numpy()
    by_day = [np.flatnonzero(days == day) for day in np.unique(days)]
    found = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([by_day[index] for index in random.integers(0, len(by_day), len(by_day))])
        found.append(_auc(truth[rows], scores[rows]))
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)
