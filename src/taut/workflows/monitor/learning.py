"""Outcomes on their way to the watches and to their table: each once, corrections in place of what they correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from taut.core.refs import VersionRef
from taut.core.times import to_us
from taut.lifecycle.monitoring import EndpointWatch
from taut.lifecycle.monitoring.outcomes import Outcome, Outcomes
from taut.lifecycle.monitoring.store import Place
from taut.lifecycle.release import Lesson
from taut.ports.records import Tx
from taut.trust.ledger import Entry
from taut.workflows.experiment import Told, payoffs_of
from taut.workflows.monitor.joining import Claim, about, join, outcome_of
from taut.workflows.monitor.lessons import lessons_of
from taut.workflows.rooms import Rooms

_WAIT_US: Final = 600 * 10**6
_AGAIN_S: Final = 30.0
_WAITING: Final = 10_000


class Learned:
    """What a look learned. kept: outcomes that are new, each with its number among those of its answer; `write` keeps them, with a leaf for
    each endpoint that says how many there were: the outcomes themselves are proved by the log's segments. tried: those about answers
    that were given in an experiment, which learns of them in the same transaction."""

    def __init__(self, outcomes: Outcomes, rooms: Rooms) -> None:
        self._outcomes: Final = outcomes
        self._rooms: Final = rooms
        self.lessons: Final[list[Lesson]] = []
        self.kept: Final[list[tuple[Outcome, int]]] = []
        self.tried: Final[list[Told]] = []
        self.again: Final[dict[str, int]] = {}

    @property
    def places(self) -> set[Place]:
        return {(one.endpoint, one.version) for one, _ in self.kept}

    def write(self, tx: Tx) -> None:
        for outcome, number in self.kept:
            self._outcomes.add(tx, outcome, number=number)
        self._rooms.releases.canaries.learn(tx, self.lessons)
        for endpoint in sorted({one.endpoint for one, _ in self.kept}):
            numbers = [number for one, number in self.kept if one.endpoint == endpoint]
            body = {
                "outcomes": len(numbers), "corrections": sum(number > 1 for number in numbers),
                "repeated": self.again.get(endpoint, 0),
            }  # fmt: skip
            self._rooms.ledger.append(tx, Entry("outcomes.taken", f"endpoint:{endpoint}", "control", body))
        if self.tried:
            for release, payoffs in payoffs_of(self._rooms, tx, self.tried).items():
                self._rooms.releases.experiments.learn(tx, release, payoffs)


class Learning:
    """Joins outcomes with answers, tells the watches, and says what is to be kept.

    Of one answer the outcome that control reads last counts; the same one again changes nothing. An outcome that has no answer yet, as
    from a machine whose records are still on their way, is tried again for ten minutes, 10,000 of them at most.
    """

    def __init__(self, rooms: Rooms, outcomes: Outcomes) -> None:
        self._rooms: Final = rooms
        self._outcomes: Final = outcomes
        self._waiting: list[Claim] = []
        self._tried_s = 0.0
        self.unmatched: Final[dict[str, int]] = {}

    def take(self, told: Sequence[Claim], watch_of: Callable[[Place], EndpointWatch | None]) -> Learned:
        """Take outcomes; the watches know them when this returns, and the table once `write` of what is returned was called."""
        learned = Learned(self._outcomes, self._rooms)
        now_s = self._rooms.clock.monotonic_s()
        claims = list(told)
        if self._waiting and (told or now_s - self._tried_s >= _AGAIN_S):
            claims, self._waiting, self._tried_s = [*self._waiting, *told], [], now_s
        if not claims:
            return learned
        self._outcomes.ready()
        found, missing = join(self._rooms.predictions, claims)
        self._wait(missing)
        latest: dict[tuple[str, int], tuple[Outcome, int]] = {}
        fresh: dict[Place, list[tuple[Outcome, Outcome | None]]] = {}
        with self._rooms.records.read() as tx:
            for one in found:
                place = one[1].head.endpoint, one[1].head.version
                watch = watch_of(place)
                signature = self._rooms.registry.signature(VersionRef.parse(place[1]))
                outcome = outcome_of(one, signature, watch)
                key = outcome.request_id, outcome.row
                before = latest.get(key) or self._before(tx, key)
                if before is not None and before[0].label == outcome.label:
                    learned.again[place[0]] = learned.again.get(place[0], 0) + 1
                    continue
                number = 1 if before is None else before[1] + 1
                latest[key] = outcome, number
                learned.kept.append((outcome, number))
                if before is None:  # who corrects may choose what
                    learned.lessons.extend(lessons_of(one[1], outcome, signature))
                if one[1].head.trial:
                    learned.tried.append((one[1], one[2], outcome.label))
                fresh.setdefault(place, []).append((outcome, None if before is None else before[0]))
        for place, outcomes in fresh.items():
            if (watch := watch_of(place)) is not None:
                _tell(watch, outcomes)
        return learned

    def _before(self, tx: Tx, key: tuple[str, int]) -> tuple[Outcome, int] | None:
        history = self._outcomes.history(tx, *key)
        return (history[-1], len(history)) if history else None

    def _wait(self, missing: Sequence[Claim]) -> None:
        since_us = to_us(self._rooms.clock.now()) - _WAIT_US
        young = [one for one in missing if one.told_us >= since_us]
        self._waiting = young[-_WAITING:]
        gone = [one for one in missing if one.told_us < since_us] + young[:-_WAITING]
        for endpoint, count in about(gone).items():
            self.unmatched[endpoint] = self.unmatched.get(endpoint, 0) + count


def _tell(watch: EndpointWatch, told: Sequence[tuple[Outcome, Outcome | None]]) -> None:
    """Let a watch learn outcomes, each with the one that it corrects; what that said is taken back, and evidence is given by first ones
    alone, together, since who looks after each outcome looks more often than anybody acts."""
    watch.learn(*_arrays([one for one, before in told if before is None]))
    watch.unlearn(*_arrays([before for _, before in told if before is not None]))
    watch.correct(*_arrays([one for one, before in told if before is not None]))


def _arrays(
    some: Sequence[Outcome],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int16], npt.NDArray[np.int64]]:
    return (
        np.array([one.wrong for one in some], np.int64),
        np.array([one.cell for one in some], np.int16),
        np.array([one.truth for one in some], np.int64),
    )
