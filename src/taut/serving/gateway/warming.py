"""Whether what a gateway has in memory answers, and soon enough, before anybody depends on it."""

from __future__ import annotations

import time
from typing import NamedTuple

from taut.core.errors import TautError
from taut.serving.gateway.compiled import Active, Endpoint
from taut.serving.placement.golden import Golden
from taut.serving.runtime import LoadedModel

_MODELS_MAX = 16
_RUNS = 3


class Warmed(NamedTuple):
    """models: how many answered. failed: which did not, and why. slow: which took longer than its endpoint's answer may."""

    models: int
    failed: tuple[str, ...] = ()
    slow: tuple[str, ...] = ()


def warm(active: Active | None) -> Warmed:
    """Run the live models that lie in this process on rows made from their signatures; the first 16. Blocks.

    Those of workers and those that are loaded with their first request are warmed where and when they are loaded.
    """
    failed, slow, models = [], [], 0
    for endpoint in () if active is None else active.answering:
        model = endpoint.resident.model
        if models == _MODELS_MAX or not isinstance(model, LoadedModel):
            continue
        models += 1
        try:
            took_ms = _answers_within_ms(model)
        except TautError as error:
            failed.append(f"{_name(endpoint)}: {error.message}")
            continue
        if took_ms > endpoint.config.latency_ms:
            slow.append(f"{_name(endpoint)}: {took_ms:.1f} ms, {endpoint.config.latency_ms:g} are allowed")
    return Warmed(models, tuple(failed), tuple(slow))


def _answers_within_ms(model: LoadedModel) -> float:
    """Return what its fastest run on the golden rows takes a row; 0 where it answers none of them."""
    golden = Golden(model)
    if golden.feed is None:
        return 0.0
    took = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        model.raw(golden.feed)
        took.append(time.perf_counter() - began)
    return min(took) / golden.count * 1e3


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.config.live.version} of endpoint {endpoint.name!r}"
