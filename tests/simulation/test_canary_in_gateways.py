"""A canary in a real gateway, judged by control's real rows: one that fails for some requests ends, and its callers are answered."""

from __future__ import annotations

import asyncio
import inspect
import json
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from canary_world import World
from msgspec import structs

from taut.adapters.world import SystemRandom
from taut.lifecycle.release.canary import CanaryPlan
from taut.serving.gateway import Reply, compile_snapshot
from taut.serving.snapshot import ArmConfig, Beat, GatewayState, TrialConfig
from taut.serving.trials import encode_trials
from taut.testing.serving import DataPlane, matrix_model, matrix_signature, open_gateway
from taut.testing.world import ManualClock

PLAN = CanaryPlan(steps=(0.2, 0.5), every_s=0.0, least=40, guardrails=("errors",))
GOOD, HUGE = {"x0": 1.0, "x1": 0.5, "x2": -0.25}, {"x0": 1e38, "x1": 0.5, "x2": -0.25}


class RealGateway:
    """A gateway as `World` has them, that compiles snapshots and answers requests."""

    def __init__(self, plane: DataPlane, stack: ExitStack, *, weight: float) -> None:
        self._plane = plane
        self._gateway = stack.enter_context(open_gateway(plane.home, SystemRandom()))
        self._tried = plane.served(matrix_model(3, weight=weight), matrix_signature(3), version="delay@2")
        self._bearer = b"Bearer " + plane.token("ana").encode()

    def follow(self, share: tuple[str, float, int] | None) -> None:
        tried = None
        if share is not None:
            release, part, stage = share
            model = structs.replace(self._tried, release=release)
            tried = TrialConfig(release=release, stage=stage, arms=(ArmConfig(model=model, weight=part),))
        snapshot = self._plane.snapshot(self._plane.endpoint(trial=tried))
        self._gateway.install(compile_snapshot(snapshot, home=self._plane.home, before=self._gateway.active))

    def ask(self, subject: str, instance: dict[str, float]) -> int:
        async def run() -> Reply:
            lines = [(b"authorization", self._bearer), (b"taut-subject", subject.encode())]
            body = json.dumps({"instances": [instance]}).encode()
            found = self._gateway.answer("POST", "/v1/predict/delay", lines, body)
            return await found if inspect.isawaitable(found) else found

        return asyncio.run(run()).status

    def state(self) -> GatewayState:
        beat = Beat(gateway="g", epoch=1, ready=True, answers=0, refusals=0, trials=encode_trials(self._gateway.trials.reading()))  # fmt: skip
        return GatewayState(gateway="g", pid=1, serving=1, beat=beat)


@pytest.mark.parametrize(("weight", "ended"), [(1.0, "live"), (1e3, "aborted")])
def test_a_canary_ends_by_what_the_gateway_counted_or_takes_over(
    plane: DataPlane, tmp_path: Path, weight: float, ended: str
) -> None:
    with ExitStack() as stack:
        gateway = RealGateway(plane, stack, weight=weight)
        world = World(
            tmp_path / "control", plan=PLAN, clock=ManualClock(datetime.now(UTC)), gateways=[gateway]
        )
        for at in range(400):
            gateway.ask(f"s{at}", HUGE if at % 3 == 0 else GOOD)
            if at % 40 == 39:
                world.tick()
        assert world.state() == ended
        statuses: set[Any] = {gateway.ask(f"s{at}", HUGE) for at in range(20)}
        assert statuses == {200}  # the live version answers whoever was the canary's
