"""Recorded traffic at ten times its rate through a real gateway's guard: nobody is found in it, and who is planted is, at once.

The clock is the test's; requests, tokens, the guard and its counters, the reports' form and the detector are real.
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.serving.gateway import Gateway, compile_snapshot
from taut.serving.snapshot import Beat, GatewayState
from taut.testing.records import memory_records
from taut.testing.serving import DataPlane, open_gateway
from taut.testing.world import ManualClock
from taut.trust.findings import Sighting
from taut.trust.shares import Hour, Hours, ShareWatch, metadata
from taut.workflows.alarms import Sentry

CALLERS, RECORDED_A_MINUTE, SPEED, MINUTES, MINUTE_S = 20, 60, 10, 4, 60.0
BODY = b'{"instances": [{"x0": 1.0, "x1": 0.5, "x2": -0.25}]}'


class Live:
    """A gateway, and a control that hears of it; what was recorded is known as the hour before."""

    def __init__(self, gateway: Gateway, plane: DataPlane) -> None:
        dice = random.Random(7)
        self.weights = [dice.lognormvariate(0, 1) for _ in range(CALLERS)]
        self.dice = dice
        self.gateway, self.clock, self.records = gateway, ManualClock(), memory_records(metadata)
        self.bearers = [b"Bearer " + plane.token(f"caller-{n}", jti=f"t{n}").encode() for n in range(CALLERS)]
        hour = int(self.clock.now().timestamp() // 3600) - 1
        recorded = Counter(self._callers(60 * RECORDED_A_MINUTE))
        known = {f"caller-{n}": float(count) for n, count in recorded.items()}
        kept = Hours(self.records)
        kept.keep(Hour(hour=hour, known=known, strangers={}), ShareWatch())
        self.sentry = Sentry(clock=self.clock, window_s=MINUTE_S, hours=kept)
        self._look()

    def minute(self, *, planted: int | None = None, times: int = 1) -> tuple[Sighting, ...]:
        """Replay ten recorded minutes in one; one caller may ask so many times as often. Return what is said of it."""
        asks = self._callers(SPEED * RECORDED_A_MINUTE)
        if planted is not None:
            asks += [planted] * ((times - 1) * asks.count(planted))
        assert {self._ask(one) for one in asks} == {200}
        self.clock.advance(MINUTE_S)
        found = self._look()
        assert found is not None
        return found

    def _callers(self, count: int) -> list[int]:
        return self.dice.choices(range(CALLERS), cum_weights=list(accumulate(self.weights)), k=count)

    def _look(self) -> tuple[Sighting, ...] | None:
        beat = Beat(
            gateway="g", epoch=1, ready=True, answers=0, refusals=0, callers=self.gateway.callers.reading()
        )
        return self.sentry.look([GatewayState(gateway="g", pid=1, serving=1, beat=beat)])

    def _ask(self, caller: int) -> int:
        reply = self.gateway.answer(
            "POST", "/v1/predict/delay", [(b"authorization", self.bearers[caller])], BODY
        )
        assert not inspect.isawaitable(reply), "nothing of it takes waiting"
        return reply.status


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    plane = DataPlane(tmp_path, FileKeys(tmp_path / "keys", random=SystemRandom()))
    with open_gateway(plane.home, SystemRandom()) as gateway:

        async def installed() -> Live:
            gateway.install(compile_snapshot(plane.snapshot(plane.endpoint()), home=plane.home, before=None))
            return Live(gateway, plane)

        made = asyncio.run(installed())
        yield made
        made.records.close()


def test_nobody_is_found_in_ten_times_the_recorded_traffic_and_who_is_planted_is_found_in_his_first_minute(
    live: Live,
) -> None:
    assert [live.minute() for _ in range(MINUTES)] == [()] * MINUTES

    rank = sorted(range(CALLERS), key=live.weights.__getitem__)
    middle = rank[CALLERS // 2]
    (seen,) = live.minute(planted=middle, times=20)
    assert (seen.kind, seen.principal) == ("share", f"caller-{middle}")
