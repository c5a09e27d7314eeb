"""What gateways told of a canary, put together: exactly once, whatever is told twice, late or by a process that died."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import structs

from taut.lifecycle.release.canary.amounts import Amounts, Bins, Scale, add_grown
from taut.lifecycle.release.guardrails import BinState, add_bins, empty_bins

OUTCOMES: Final = "outcomes"
"""As which process control reports what it learned of outcomes."""
Pair = tuple[int, int]
"""Of the canary, of the baseline."""
Marks = tuple[tuple[int, ...], tuple[int, ...]]

_SEEN_MOST: Final = 512
_FAILED_MOST: Final = 256
_SCORED_MOST: Final = 2048
_MINUTES: Final = 3
_PRIOR_LEAST: Final = 500
BINS: Final = 16
"""Of predictions; as many as `taut.serving.trials` has."""
_SHARES: Final = (0.5, 0.1, 0.05, 0.01)
"""Of the baseline's answers beyond the reference times."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What one gateway process counted of one stage since it began there; see `taut.serving.trials.TrialReading`.

    told: of what control itself learned, from outcomes, by the guardrail that it is for.
    """

    process: str
    stage: int
    seen: Marks = ((), ())
    failed: Mapping[int, Marks] = {}
    fatal: Pair = (0, 0)
    answers: Pair = (0, 0)
    times: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    scored: Marks = ((), ())
    broken: Pair = (0, 0)
    worked: Bins = ((), ())
    told: Mapping[str, Bins] = {}


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """How far a process had counted when it was heard last."""

    fatal: Pair = (0, 0)
    answers: Pair = (0, 0)
    times: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    broken: Pair = (0, 0)
    told: dict[str, Bins] = {}


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one stage.

    units: distinct ones that were drawn to each arm, of a sample whose marks are `sample`. failed: units that failed, each
    once a minute; `counted`: the marks that were, of the last minutes. slow: answers beyond each reference time. prior: the
    baseline's answers by time, before there were any. heard: by process. scores: first predictions by bin, of the units `scored`.
    broken: requests without an answer of the version's own. times: answers by time. amounts: by guardrail, what answers were worth or
    took, in bins. work: the baseline's answers by how long models took, before it is known what is usual.
    """

    weight: float
    units: Pair = (0, 0)
    failed: Pair = (0, 0)
    fatal: Pair = (0, 0)
    answers: Pair = (0, 0)
    slow: tuple[Pair, ...] = ((0, 0),) * len(_SHARES)
    prior: tuple[int, ...] = ()
    sample: tuple[int, ...] = ()
    counted: dict[int, tuple[int, ...]] = {}
    heard: dict[str, Heard] = {}
    scores: BinState = empty_bins(BINS)
    scored: tuple[int, ...] = ()
    broken: Pair = (0, 0)
    times: Bins = ((), ())
    amounts: dict[str, Amounts] = {}
    work: tuple[int, ...] = ()

    def closed(self) -> Tally:
        """Return the stage with what it counted alone: no gateway will tell more of it."""
        heard = {OUTCOMES: self.heard[OUTCOMES]} if OUTCOMES in self.heard else {}
        return structs.replace(self, sample=(), counted={}, heard=heard, scored=())


def add_reports(
    tally: Tally,
    reports: Sequence[Report],
    *,
    reference: Sequence[int],
    minute: int,
    scales: Mapping[str, Scale] = {},
) -> Tally:
    """Take what processes told of a stage; the same again adds nothing.

    scales: of the guardrails that compare amounts; what is told of others is not counted.

    reference: buckets of times beyond which an answer is slow; empty until `reference_of` finds them, and none is counted by
    then. minute: by control's clock; failures of minutes that are not near it are not counted, whatever a gateway's clock says.
    """
    units, sample = _fresh(tally.sample, (one.seen for one in reports), most=_SEEN_MOST)
    counted = {at: marks for at, marks in tally.counted.items() if at > minute - _MINUTES}
    failed = tally.failed
    for at in sorted({at for one in reports for at in one.failed if minute - _MINUTES < at <= minute + 1}):
        told = (one.failed[at] for one in reports if at in one.failed)
        new, counted[at] = _fresh(counted.get(at, ()), told, most=_FAILED_MOST)
        failed = _plus(failed, new)
    scored, bins = _fresh_scores(tally.scored, reports)
    scores = add_bins(tally.scores, *bins, weight=tally.weight) if scored != tally.scored else tally.scores
    found = structs.replace(
        tally, units=_plus(tally.units, units), sample=sample, failed=failed, counted=counted,
        heard=dict(tally.heard), scores=scores, scored=scored
    )  # fmt: skip
    for report in reports:
        found = _add_counters(found, report, reference)
    return _add_amounts(found, tally.heard, reports, scales)


def _add_amounts(
    tally: Tally, before: Mapping[str, Heard], reports: Sequence[Report], scales: Mapping[str, Scale]
) -> Tally:
    """Take amounts of all processes together, since they are one interval; and what models took, as long as their scale is not known."""
    amounts, work = dict(tally.amounts), tally.work
    for name in sorted({name for one in reports for name in _told(one)}):
        grown: Bins = ((), ())
        for one in reports:
            then = before.get(one.process, Heard())
            now, known = _told(one).get(name, ((), ())), then.told.get(name, ((), ()))
            grown = _both(grown, (_grown(now[0], known[0]), _grown(now[1], known[1])))
        if name in scales:
            amounts[name] = add_grown(amounts.get(name, Amounts()), scales[name], grown, weight=tally.weight)
        elif name == "cost":
            work = _longer(work, grown[1])
    return structs.replace(tally, amounts=amounts, work=work)


def _told(report: Report) -> dict[str, Bins]:
    """Return amounts by guardrail: what control learned of outcomes, and how long models took."""
    return {**report.told, **({"cost": report.worked} if any(report.worked) else {})}


def _add_counters(tally: Tally, report: Report, reference: Sequence[int]) -> Tally:
    before = tally.heard.get(report.process, Heard())
    if _began_anew(report, before):
        before = Heard()
    canary, baseline = (_since(now, then) for now, then in zip(report.times, before.times, strict=True))
    slow, prior = tally.slow, tally.prior
    if reference:
        slow = tuple(
            _plus(so_far, (sum(canary[bucket + 1 :]), sum(baseline[bucket + 1 :])))
            for so_far, bucket in zip(slow, reference, strict=True)
        )
    elif baseline:
        prior = tuple(map(sum, zip(prior, baseline, strict=True))) if prior else baseline
    tally.heard[report.process] = Heard(
        report.fatal, report.answers, report.times, report.broken, _told(report)
    )
    return structs.replace(
        tally, slow=slow, prior=prior, times=_both(tally.times, (canary, baseline)),
        broken=_plus(tally.broken, _minus(report.broken, before.broken)),
        fatal=_plus(tally.fatal, _minus(report.fatal, before.fatal)),
        answers=_plus(tally.answers, _minus(report.answers, before.answers)),
    )  # fmt: skip


def _began_anew(report: Report, before: Heard) -> bool:
    """Tell whether a process counts from nothing again, as after a snapshot without the canary: counters never fall else."""
    now, then = (*report.fatal, *report.answers), (*before.fatal, *before.answers)
    return any(a < b for a, b in zip(now, then, strict=True))


def reference_of(prior: Sequence[int]) -> tuple[int, ...]:
    """Return the buckets that end nearest to the baseline's median and its 90, 95 and 99%; empty while too few are known."""
    total = sum(prior)
    if total < _PRIOR_LEAST:
        return ()
    beyond, left = [], total
    for count in prior:
        left -= count
        beyond.append(left / total)
    edges = [
        at for at, share in enumerate(beyond) if share > 0.0
    ]  # beyond the others there is nothing to be seen
    return tuple(min(edges, key=lambda at: abs(beyond[at] - share)) for share in _SHARES) if edges else ()


def _fresh(known: Sequence[int], told: Iterable[Marks], *, most: int) -> tuple[Pair, tuple[int, ...]]:
    """Return how many units of each arm came into the sample just now, and the sample: the `most` smallest marks."""
    arms: dict[int, bool] = {}
    for canary, baseline in told:
        arms |= dict.fromkeys(baseline, False)
        arms |= dict.fromkeys(canary, True)
    before = set(known)
    sample = sorted(before | arms.keys())[:most]
    new = [arms[mark] for mark in sample if mark not in before]
    return (sum(new), len(new) - sum(new)), tuple(sample)


def _fresh_scores(
    known: Sequence[int], reports: Sequence[Report]
) -> tuple[tuple[int, ...], tuple[list[int], list[int]]]:
    """Return the sample of units whose prediction is counted, and the bins of those that came into it just now, by arm."""
    told = {mark // BINS: (arm, mark % BINS) for one in reports for arm in (0, 1) for mark in one.scored[arm]}
    before = set(known)
    sample = sorted(before | told.keys())[:_SCORED_MOST]
    bins: tuple[list[int], list[int]] = ([0] * BINS, [0] * BINS)
    for mark in sample:
        if mark not in before:
            arm, at = told[mark]
            bins[arm][at] += 1
    return tuple(sample), bins


def _since(now: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    return now if not then else tuple(a - b for a, b in zip(now, then, strict=True))


def _longer(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sum, zip(one, other, strict=True))) if one and other else one or other


def _both(one: Bins, other: Bins) -> Bins:
    return _longer(one[0], other[0]), _longer(one[1], other[1])


def _grown(now: tuple[int, ...], then: tuple[int, ...]) -> tuple[int, ...]:
    """Return what came to counters; all of it where they began anew."""
    anew = not now or any(a < b for a, b in zip(now, then, strict=False))
    return now if anew else _since(now, then)


def _plus(one: Pair, other: Pair) -> Pair:
    return one[0] + other[0], one[1] + other[1]


def _minus(one: Pair, other: Pair) -> Pair:
    return one[0] - other[0], one[1] - other[1]
