"""Which outcomes count as labels that people gave, and which are in doubt: a flood, a contradiction, an echo."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from taut.lifecycle.monitoring.outcomes import Outcome

CHANCE: Final = 1e-6
"""That somebody who tells the truth is taken for an echo."""


class Weighed(msgspec.Struct, frozen=True, kw_only=True):
    """Answers by what their outcomes are worth. echoes: who tells nothing but what the model said. flooding: of whom some do not count."""

    counted: int
    contested: int = 0
    echoed: int = 0
    flooded: int = 0
    echoes: tuple[str, ...] = ()
    flooding: tuple[str, ...] = ()

    @property
    def doubted(self) -> int:
        return self.contested + self.echoed + self.flooded


def weigh(outcomes: Iterable[Outcome], *, share: float, error: float | None) -> Weighed:
    """Say which answers have an outcome that counts.

    outcomes: in the order in which they came; of one answer and one principal the last one stands for all. share: of those that
    count that one principal may have told; 1 for no bound. error: how often the version is wrong as far as is known.

    An answer to which different principals gave different labels is contested. Who never says that the version is wrong is an
    echo where that would be as rare as `CHANCE` for one who tells the truth: (1 - error)^n. Not covered: an echo that adds a few
    errors, principals who act together below the share, and labels that are wrong in the same way from everybody.
    """
    by_answer: dict[tuple[str, int], dict[str, Outcome]] = {}
    for one in outcomes:
        by_answer.setdefault((one.request_id, one.row), {})[one.principal] = one
    contested = 0
    by_principal: dict[str, list[Outcome]] = {}
    for told in by_answer.values():
        if len({one.label for one in told.values()}) > 1:
            contested += 1
        else:
            first = next(iter(told.values()))
            by_principal.setdefault(first.principal, []).append(first)
    echoes = tuple(sorted(who for who, told in by_principal.items() if _is_echo(told, error)))
    counts = {who: len(told) for who, told in by_principal.items() if who not in echoes}
    kept = _within(counts, share)
    return Weighed(
        counted=sum(kept.values()), contested=contested, echoed=sum(len(by_principal[who]) for who in echoes),
        flooded=sum(counts.values()) - sum(kept.values()), echoes=echoes,
        flooding=tuple(sorted(who for who in counts if kept[who] < counts[who])),
    )  # fmt: skip


def _is_echo(told: list[Outcome], error: float | None) -> bool:
    return bool(error) and not any(one.wrong for one in told) and (1 - (error or 0.0)) ** len(told) < CHANCE


def _within(counts: dict[str, int], share: float) -> dict[str, int]:
    """Return how many of each count, so that none has more than `share` of them all.

    >>> _within({"a": 90, "b": 10, "c": 10}, 0.5)
    {'a': 20, 'b': 10, 'c': 10}
    """
    kept = dict(counts)
    while share < 1 and kept:
        most = max(sorted(kept), key=lambda who: kept[who])
        allowed = int(share / (1 - share) * (sum(kept.values()) - kept[most]) + 1e-9)
        if kept[most] <= allowed:
            break
        kept[most] = allowed
    return kept
