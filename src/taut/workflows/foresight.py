"""What a release could find out, by the traffic that gateways saw since they began."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from taut.lifecycle.release.canary import Traffic, declared_plan, foreseen
from taut.project.manifest import EndpointSpec
from taut.serving.meters import decode_reading
from taut.serving.snapshot import GatewayState

_OURS: Final = 500


def traffic_of(endpoint: str, gateways: Sequence[GatewayState], *, wrong: float | None = None) -> Traffic:
    """Return what an endpoint was asked a second, by each gateway since its start. wrong: the share of wrong answers, where it is known."""
    per_s = failing_s = 0.0
    for state in gateways:
        if state.beat is None:
            continue
        reading = decode_reading(state.beat.meters)
        if reading is None or not reading.up_us:
            continue  # another layout than control knows: it costs that gateway's figures
        for one in reading.endpoints:
            if one.endpoint == endpoint:
                broken = sum(told.count for told in one.refusals if told.status >= _OURS)
                answered = one.stages["total"].count if "total" in one.stages else 0
                per_s += (answered + broken) * 1e6 / reading.up_us
                failing_s += (broken + one.fallbacks) * 1e6 / reading.up_us
    return Traffic(per_s=per_s, failing=failing_s / per_s if per_s else 0.0, wrong=wrong)


def foreseen_of(
    endpoint: EndpointSpec, gateways: Sequence[GatewayState], *, wrong: float | None = None
) -> tuple[str, ...]:
    """Say what canaries of an endpoint would find. Raises InvalidInput for a plan that could not be judged."""
    return tuple(foreseen(declared_plan(endpoint), traffic_of(endpoint.name, gateways, wrong=wrong)))
