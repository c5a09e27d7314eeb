"""An answer and what it came from, between scoring and the record."""

from __future__ import annotations

import msgspec

from taut.serving.gateway.scorer import Features
from taut.serving.meters import EndpointMeter
from taut.serving.predictions import Origin
from taut.serving.runtime import Outputs
from taut.serving.snapshot import ServedModel


class Made(msgspec.Struct, gc=False):
    """An answer and what it came from.

    features: those that it was made from, or nothing where they are not known. head: its header lines. fallback: what
    stood in, for the record. age_ns: of an answer from the cache; -1 where it was computed for this request. nodes: of a
    graph, those that answered, with their versions.
    """

    features: Features
    outputs: Outputs
    served: ServedModel
    head: bytes
    fallback: str = ""
    age_ns: int = -1
    nodes: tuple[str, ...] = ()

    def origin(self, worker: str) -> Origin:
        """Return what the prediction log is told. worker: that computed it."""
        age_us = 0 if self.age_ns < 0 else max(1, self.age_ns // 1000)
        if worker and self.age_ns < 0:
            return (self.fallback, age_us, self.nodes, worker)
        return (self.fallback, age_us, self.nodes) if self.nodes else (self.fallback, age_us)

    def count(self, meter: EndpointMeter) -> None:
        if self.fallback:
            meter.fallbacks += 1
        elif self.age_ns >= 0:
            meter.cache_hits += 1
