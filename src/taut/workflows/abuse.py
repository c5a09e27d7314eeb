"""From the prediction log to findings of abuse: baselines from training data, queries from records."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Final

from taut.core.errors import InvalidInput, NotFound
from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.serving.predictions import Answer, PredictionRecord, Segment, decode_record
from taut.trust.abuse import SIGNALS, AbuseWatch, Baseline, Caller, Queries
from taut.trust.findings import Findings
from taut.workflows.rooms import Rooms

KINDS: Final = tuple(sorted(set(SIGNALS.values())))
_ROWS: Final = 10_000
_OK: Final = 200
_BEGIN: Final = 200
_AT_ONCE: Final = 20_000
_LEAST: Final = 500
_HELD: Final = 5_000
_BACK_US: Final = 3600 * 10**6
_UNSEEN: Final = timedelta(days=1)


class Lookout:
    """Reads what gateways logged, as their segments are sealed, and keeps findings of those against whom it speaks.

    group_of: the group of a principal: where his credentials come from.

    An endpoint is watched from its 200th query on, by a baseline of the version that answers. Of each segment at most 20,000
    queries of an endpoint count, and as many of each caller, 5,000 at most, so that nobody hides in another's crowd; whoever was found is not counted to his
    group. A control that starts anew begins with the segments of the last hour. One thread owns it.
    Not guaranteed: to see endpoints that keep no prediction log (`audit="off"`), graphs, and endpoints whose training data is too
    little or gone; `blind` says which, and why.
    """

    def __init__(
        self,
        rooms: Rooms,
        findings: Findings,
        *,
        group_of: Callable[[str], str],
        watch: AbuseWatch | None = None,
    ) -> None:
        self.watch: Final = watch or AbuseWatch()
        self.blind: Final[dict[str, str]] = {}
        self._rooms: Final = rooms
        self._findings: Final = findings
        self._group_of: Final = group_of
        self._read: Final[set[str]] = set()
        self._begun = False
        self._asked: Final[dict[str, int]] = {}
        self._baselines: Final[dict[str, tuple[str, Baseline | None]]] = {}

    def look(self) -> int:
        """Read what was sealed since the last look, and return how many segments that were.

        Raises what reading one of them does; it is left out then, and the next look goes on behind it.
        """
        fresh = self._fresh()
        for segment in fresh:
            self._read.add(segment.path.name)
            self._take(decode_record(payload) for payload in self._rooms.predictions.payloads(segment))
        if fresh:
            self._findings.report(self.watch.sightings())
        self._findings.lapse(KINDS, unseen_for=_UNSEEN)
        return len(fresh)

    def _fresh(self) -> list[Segment]:
        sealed = [one for one in self._rooms.predictions.segments() if one.state == "sealed"]
        if not self._begun:
            from_us = to_us(self._rooms.clock.now()) - _BACK_US
            self._read.update(one.path.name for one in sealed if one.started_us < from_us)
            self._begun = True
        self._read.intersection_update(
            [one.path.name for one in sealed]
        )  # those that were archived are forgotten
        return [one for one in sealed if one.path.name not in self._read]

    def _take(self, records: Iterable[PredictionRecord]) -> None:
        by_endpoint: dict[str, dict[str, list[PredictionRecord]]] = {}
        held: dict[tuple[str, str], int] = {}
        for record in records:
            if record.status != _OK:
                continue
            key = record.head.endpoint, record.principal
            rows = held.get(key, 0)
            if rows < _HELD:  # a segment may hold more than control has memory for
                held[key] = rows + _rows(record)
                by_endpoint.setdefault(key[0], {}).setdefault(key[1], []).append(record)
        for endpoint, callers in by_endpoint.items():
            fresh = sum(held[endpoint, principal] for principal in callers)
            asked = self._asked[endpoint] = self._asked.get(endpoint, 0) + fresh
            newest = max((one for some in callers.values() for one in some), key=lambda one: one.time_us)
            baseline = self._baseline(endpoint, newest.head.version) if asked >= _BEGIN else None
            if baseline is not None:
                self._judge(endpoint, baseline, callers)

    def _judge(self, endpoint: str, baseline: Baseline, callers: dict[str, list[PredictionRecord]]) -> None:
        resource, most = f"endpoint:{endpoint}", min(_HELD, max(_LEAST, _AT_ONCE // len(callers)))
        groups: dict[str, list[PredictionRecord]] = {}
        for principal, records in callers.items():
            queries = queries_of(records, baseline.space.columns, most=most)
            self.watch.observe(resource, Caller(principal), queries)
            if not self.watch.suspected(resource, Caller(principal)):
                groups.setdefault(self._group_of(principal), []).extend(records)
        for group, records in groups.items():
            if group:
                records.sort(key=lambda one: one.time_us)
                queries = queries_of(records, baseline.space.columns, most=most)
                self.watch.observe(resource, Caller(group, is_group=True), queries)

    def _baseline(self, endpoint: str, version: str) -> Baseline | None:
        """Return the baseline of a version, made where the endpoint answers with it for the first time."""
        known = self._baselines.get(endpoint)
        if known is not None and known[0] == version:
            return known[1]
        try:
            made: Baseline | None = baseline_of(self._rooms, VersionRef.parse(version))
        except (InvalidInput, NotFound) as error:
            made, self.blind[endpoint] = None, error.message
        self._baselines[endpoint] = version, made
        if made is not None:
            self.blind.pop(endpoint, None)
            self.watch.adopt(f"endpoint:{endpoint}", made)
        return made


def baseline_of(rooms: Rooms, version: VersionRef) -> Baseline:
    """Return what honest queries of a model version look like, by the data of the run that made it.

    Raises InvalidInput where there are too few rows to say, NotFound for a version that no run of ours made (a graph).
    """
    candidate = rooms.registry.show(version).candidate
    signature = candidate.signature
    columns = [column.name for column in signature.request if column.name != signature.event_time]
    learned, tested = rooms.training.requests(candidate.run, rows=_ROWS)
    keys = dict.fromkeys(key for lookup in signature.lookups for key in lookup.keys)
    return Baseline(
        columns, known=learned.select(columns).rows(), held=tested.select(columns).rows(), keys=tuple(keys)
    )


def queries_of(records: Iterable[PredictionRecord], columns: Sequence[str], *, most: int) -> Queries:
    """Return the first `most` answered queries of one caller's records, each row one, with the values of `columns`."""
    found = Queries([], [], [], [])
    for record in records:
        said = _answers(record.answer)
        asked = record.requests()
        if len(asked) != len(said):
            continue  # an answer without rows, as a batch of nothing has
        for row, (score, gap, label) in zip(asked, said, strict=True):
            found.rows.append(tuple(row.get(column) for column in columns))
            found.scores.append(score)
            found.gaps.append(gap)
            found.labels.append(label)
        if len(found.rows) >= most:
            break
    return found


def _rows(record: PredictionRecord) -> int:
    return len(record.answer.probabilities or record.answer.values)


def _answers(answer: Answer) -> list[tuple[float, float, Any]]:
    """Return for each row (score, gap, label)."""
    if not answer.probabilities:
        return [(value, math.nan, 0) for value in answer.values]
    found = []
    for label, said in zip(answer.labels, answer.probabilities, strict=True):
        ordered = sorted(said)
        score = said[1] if len(said) == 2 else ordered[-1]
        found.append((score, ordered[-1] - ordered[-2] if len(said) > 1 else math.nan, label))
    return found
