"""The watch: for each caller and group at each endpoint the evidence of every signal, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.evidence import Scalar
from taut.trust.abuse.baseline import Baseline
from taut.trust.abuse.evidence import bets, fresh, step
from taut.trust.abuse.signals import SAID, SIGNALS, Memory, Queries
from taut.trust.abuse.space import Floats
from taut.trust.findings import Severity, Sighting

_BLOCK: Final = 10
_ONE_BY_ONE: Final = frozenset({"distances", "rises", "falls"})
_GRAVE: Final = 3.0  # twenty times as much evidence as an alarm takes
_RECENT: Final = 0.9  # how much of a share is kept at each block


class Caller(msgspec.Struct, frozen=True):
    """Whose queries they are: those of one principal, or of a group of them, by the name of either."""

    name: str
    is_group: bool = False


class _Tally:
    """What one signal said of one caller: the evidence, the share of late, and what fills the next block."""

    __slots__ = ("count", "evidence", "share", "sums", "total")

    def __init__(self) -> None:
        self.sums = fresh()
        self.evidence = -math.inf
        self.share = 0.0
        self.total = 0.0
        self.count = 0

    def take(self, zs: Floats, block: int, bound: float, stakes: tuple[float, ...], alarm: float) -> None:
        for z in zs.tolist():
            self.total += z
            self.count += 1
            if self.count == block:
                mean, self.total, self.count = self.total / block, 0.0, 0
                self.share = _RECENT * self.share + (1 - _RECENT) * mean
                self.evidence = step(self.sums, mean, bound, stakes, alarm)


class _State:
    """One caller at one endpoint."""

    __slots__ = ("memory", "queries", "seen", "tallies")

    def __init__(self, baseline: Baseline) -> None:
        self.memory = Memory(baseline.space)
        self.tallies: dict[str, _Tally] = {}
        self.queries = 0
        self.seen: npt.NDArray[np.bool_] = np.zeros(baseline.marks, np.bool_)

    def renew(self, baseline: Baseline) -> None:
        """Go on under another baseline: what was held against him stays, what was remembered of his queries goes."""
        self.memory = Memory(baseline.space)
        self.seen = np.zeros(baseline.marks, np.bool_)


class AbuseWatch:
    """Collects evidence against callers from their queries and the answers that they got.

    queries_between_alarms: how many queries of honest callers there are at least between two false alarms, in expectation, over
    all callers, groups and signals together. callers_max: of how many something is remembered, some ten thousand bytes
    each; whoever was seen longest ago is forgotten first.

    Queries are taken in blocks of ten, each a bet against the bound of its signal (distances by fifty, trials of a climb one
    by one). Guarantee: while in every block the expected share is within the baseline's bound, given what came before, n queries raise a false alarm
    with a chance of at most n over `queries_between_alarms`, looked at however often. Not guaranteed: finding who
    stays within the bounds, by asking like honest callers, so slowly that he hides among his own honest queries, or under
    many names that share no group. The same queries in the same order give the same evidence.
    """

    def __init__(self, *, callers_max: int = 2000, queries_between_alarms: float = 1e6) -> None:
        if callers_max < 1 or queries_between_alarms < 100:
            raise InvalidInput(
                f"callers_max is {callers_max}, queries_between_alarms {queries_between_alarms}: give at least 1 and 100"
            )
        self._max: Final = callers_max
        self._alarm: Final = math.log(queries_between_alarms * 2 * len(SIGNALS))
        self._baselines: Final[dict[str, Baseline]] = {}
        self._stakes: Final[dict[str, dict[str, tuple[float, ...]]]] = {}
        self._states: Final[dict[tuple[str, Caller], _State]] = {}
        self._heard: Final[set[tuple[str, Caller]]] = set()

    def __len__(self) -> int:
        """Return of how many callers and groups something is remembered, each endpoint counted."""
        return len(self._states)

    def adopt(self, resource: str, baseline: Baseline) -> None:
        """Judge an endpoint's queries by a baseline from now on."""
        self._baselines[resource] = baseline
        self._stakes[resource] = {
            name: bets(bound) for name, bound in baseline.bounds.items() if name not in baseline.blind
        }
        for (at, _), state in self._states.items():
            if at == resource:
                state.renew(baseline)

    def observe(self, resource: str, caller: Caller, queries: Queries) -> None:
        """Take queries of a caller, later than those before. Without a baseline of the endpoint nothing is learned."""
        baseline = self._baselines.get(resource)
        if baseline is None or not queries.rows:
            return
        key = (resource, caller)
        state = self._states.pop(key, None) or _State(baseline)
        self._states[key] = state
        self._heard.add(key)
        while len(self._states) > self._max:
            gone = next(iter(self._states))
            del self._states[gone]
            self._heard.discard(gone)
        state.queries += len(queries.rows)
        baseline.visit(state.seen, queries.rows)
        for name, zs in baseline.look(state.memory, queries).items():
            stakes = self._stakes[resource].get(name)
            if stakes is not None and len(zs):
                block = 1 if name in _ONE_BY_ONE else _BLOCK
                tally = state.tallies.setdefault(name, _Tally())
                tally.take(zs, block, baseline.bounds[name], stakes, self._alarm)

    def suspected(self, resource: str, caller: Caller) -> frozenset[str]:
        """Return the kinds of finding for which there is enough evidence now."""
        state = self._states.get((resource, caller))
        if state is None:
            return frozenset()
        return frozenset(SIGNALS[name] for name, one in state.tallies.items() if one.evidence >= self._alarm)

    def sightings(self) -> tuple[Sighting, ...]:
        """Return what is to be held against those heard of since the last call: one for each kind, by its strongest signal."""
        found = []
        heard = sorted(self._heard, key=lambda key: (key[0], key[1].is_group, key[1].name))
        self._heard.clear()
        for resource, caller in heard:
            state = self._states[resource, caller]
            strongest: dict[str, str] = {}
            for name, one in state.tallies.items():
                best = strongest.get(SIGNALS[name])
                if one.evidence >= self._alarm and (
                    best is None or one.evidence > state.tallies[best].evidence
                ):
                    strongest[SIGNALS[name]] = name
            found += [self._sighting(resource, caller, state, kind, name) for kind, name in strongest.items()]
        return tuple(found)

    def exposure(self, resource: str, caller: Caller) -> float:
        """Return which part of training's combinations of values a caller has seen answered: what a copy could learn from."""
        state = self._states.get((resource, caller))
        return 0.0 if state is None or not len(state.seen) else float(state.seen.mean())

    def evidence(self, resource: str, caller: Caller) -> Mapping[str, float]:
        """Return the evidence of each signal as a part of what raises an alarm; for people and benchmarks."""
        state = self._states.get((resource, caller))
        return (
            {} if state is None else {name: one.evidence / self._alarm for name, one in state.tallies.items()}
        )

    def _severity(self, kind: str, evidence: float) -> Severity:
        if not kind.startswith("abuse."):
            return "info"
        return "critical" if evidence >= self._alarm + _GRAVE else "warning"

    def _sighting(self, resource: str, caller: Caller, state: _State, kind: str, name: str) -> Sighting:
        tally, also = state.tallies[name], []
        bound = self._baselines[resource].bounds[name]
        for other, one in sorted(state.tallies.items()):
            if other != name and one.evidence >= self._alarm:
                also.append(other)
        evidence: dict[str, Scalar] = {
            "signal": name, "share": round(tally.share, 4), "bound": round(bound, 4),
            "evidence": round(tally.evidence, 2), "alarm": round(self._alarm, 2), "queries": state.queries,
            "exposure": round(self.exposure(resource, caller), 4), "also": " ".join(also),
        }  # fmt: skip
        return Sighting(
            severity=self._severity(kind, tally.evidence),
            kind=kind, resource=resource, score=round(tally.evidence, 2), evidence=evidence,
            principal="" if caller.is_group else caller.name, group=caller.name if caller.is_group else "",
            summary=(
                f"{caller.name}: of late {tally.share:.0%} of {state.queries:,} queries {SAID[name]}; honest callers have at "
                f"most {bound:.0%}"
            ),
            closes="no such query for a day, or an administrator's word that they are right",
        )  # fmt: skip
