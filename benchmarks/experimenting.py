"""Callers who come once each, payoffs at planted rates, and the product's own experiments: `python -m benchmarks.experimenting FILE.svg` draws one."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from taut.lifecycle.release.experiment import ExperimentPlan, PayoffSum, advance, begun, standings
from taut.lifecycle.release.guardrails import Stage, two_sided_log_e

TICK_S: Final = 600.0
TICKS: Final = 288
CALLERS: Final = 300
RATES: Final = (0.05, 0.06, 0.04, 0.08)
SWITCHED: Final = (0.08, 0.06, 0.04, 0.05)
Rates = Callable[[int], Sequence[float]]


def steady(_tick: int) -> Sequence[float]:
    return RATES


def switching(tick: int) -> Sequence[float]:
    """Return rates of which another is the best from the middle on."""
    return RATES if tick < TICKS // 2 else SWITCHED


def busy(tick: int) -> Sequence[float]:
    """Return rates that rise and fall by half over each day, together."""
    return [rate * (1.0 + 0.5 * math.sin(2 * math.pi * tick / 144)) for rate in RATES]


class Ran(NamedTuple):
    """regret: what was gained less than the best version would have, by caller. weights: after each tick."""

    regret: float
    weights: list[tuple[float, ...]]


def plan_of(*, memory_s: float = 0.0, floor: float = 0.03) -> ExperimentPlan:
    arms = tuple(f"delay@{number}" for number in range(1, len(RATES) + 1))
    return ExperimentPlan(
        kind="bandit", arms=arms, weights=(1 / len(arms),) * len(arms), metric="reward", every_s=TICK_S, floor=floor,
        least=50, memory_s=memory_s,
    )  # fmt: skip


def bandit(plan: ExperimentPlan, rates: Rates, *, seed: int, late: int = 0) -> Ran:
    """Let a bandit go its way. late: up to how many ticks after an answer its outcome is told, evenly."""
    choose = np.random.default_rng(seed)
    state = begun(plan, 0)
    told: dict[tuple[int, int], list[PayoffSum]] = {}
    known: list[PayoffSum] = []
    regret, weights = 0.0, []
    for tick in range(TICKS):
        now = rates(tick)
        drawn = choose.multinomial(CALLERS, state.weights)
        regret += sum(count * (max(now) - rate) for count, rate in zip(drawn, now, strict=True))
        for arm, count in enumerate(drawn):
            for wait, part in enumerate(choose.multinomial(count, [1 / (late + 1)] * (late + 1))):
                gained = choose.binomial(part, now[arm])
                one = PayoffSum(arm, state.weights[arm], int(tick * TICK_S * 1e6), int(part), float(gained))
                told.setdefault((tick + wait, arm), []).append(one)
        known += [one for arm in range(len(now)) for one in told.pop((tick, arm), []) if one.size]
        state = advance(plan, state, {}, known, now_us=int((tick + 1) * TICK_S * 1e6)).state
        weights.append(state.weights)
    return Ran(regret / (TICKS * CALLERS), weights)


def uniform(rates: Rates) -> float:
    """Return the regret by caller of equal parts for each version."""
    return sum(max(rates(tick)) - sum(rates(tick)) / len(RATES) for tick in range(TICKS)) / TICKS


def ab_called(
    rates: Sequence[float], *, runs: int, looks: int = 100, units: int = 300
) -> list[tuple[int, str] | None]:
    """Return of each run when a version was called better or worse, in outcomes, and what; None where none ever was.

    Verdicts are the product's; they are asked for where its evidence at ratio 1 says that there is one.
    """
    arms = tuple(f"delay@{number}" for number in range(1, len(rates) + 1))
    plan = ExperimentPlan(kind="ab", arms=arms, weights=(1 / len(arms),) * len(arms), metric="reward")
    found: list[tuple[int, str] | None] = []
    for seed in range(runs):
        choose = np.random.default_rng(seed)
        counts, gains = np.zeros(len(arms)), np.zeros(len(arms))
        found.append(None)
        for _look in range(looks):
            drawn = choose.multinomial(units, plan.weights)
            counts, gains = counts + drawn, gains + choose.binomial(drawn, rates)
            pairs = [(Stage(0.5, float(gains[arm]), float(gains[0])),) for arm in range(1, len(arms))]
            if any(two_sided_log_e(pair) >= -math.log(plan.each) for pair in pairs):
                sums = [
                    PayoffSum(arm, 0.0, 0, int(counts[arm]), float(gains[arm])) for arm in range(len(arms))
                ]
                stood = standings(plan, plan.weights, ("",) * len(arms), sums, now_us=0)
                said = [f"{one.version} {one.verdict}" for one in stood if one.verdict in ("better", "worse")]
                if said:
                    found[-1] = int(counts.sum()), said[0]
                    break
    return found


_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 860, 320, 46, 34, 34
_COLOURS: Final = ("#8a8a8a", "#4269d0", "#efb118", "#0b6e4f")


def draw() -> str:
    """Return the weights of a run in which another version becomes the best, one above the other."""
    plan = plan_of(memory_s=6 * 3600)
    weights = bandit(plan, switching, seed=7, late=6).weights
    ticks = range(0, TICKS, 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for arm, colour in enumerate(_COLOURS):
        lower = [(tick, sum(weights[tick][:arm])) for tick in ticks]
        upper = [(tick, sum(weights[tick][: arm + 1])) for tick in ticks]
        outline = " ".join(f"{_x(tick):.0f},{_y(share):.0f}" for tick, share in [*lower, *reversed(upper)])
        parts.append(f'<polygon points="{outline}" fill="{colour}"/>')
        parts.append(_text(_LEFT + 140 * arm, _TOP - 14, f"■ {plan.arms[arm]}", colour))
    for share in (0.0, 0.5, 1.0):
        parts.append(_text(_LEFT - 8, _y(share) + 4, f"{share:.0%}", anchor="end"))
    for hour in range(0, 49, 12):
        parts.append(_text(_x(hour * 6), _HEIGHT - _BOTTOM + 18, f"{hour} h", anchor="middle"))
    parts.append(f'<line x1="{_x(TICKS / 2):.0f}" x2="{_x(TICKS / 2):.0f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#fff" stroke-dasharray="4"/>')  # fmt: skip
    return "\n".join([*parts, "</svg>", ""])


def _x(tick: float) -> float:
    return _LEFT + tick / TICKS * (_WIDTH - _LEFT - 14)


def _y(share: float) -> float:
    return _TOP + (1.0 - share) * (_HEIGHT - _TOP - _BOTTOM)


def _text(left: float, top: float, said: str, colour: str = "#333", anchor: str = "start") -> str:
    return f'<text x="{left:.0f}" y="{top:.0f}" fill="{colour}" text-anchor="{anchor}">{said}</text>'


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw())
