"""What the runner at the edge opens: randomness and ids, and nothing that needs a library which a device lacks."""

from __future__ import annotations

from taut.adapters.world import SystemIds, SystemRandom
from taut.ports.world import Ids, Random


def edge_world() -> tuple[Ids, Random]:
    return SystemIds(), SystemRandom()
