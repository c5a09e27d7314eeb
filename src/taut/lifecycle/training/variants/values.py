"""What trying the variants of a model gives, as frozen values."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from taut.lifecycle.training.values import Environment

VARIANTS: Final[dict[str, str]] = {
    "graph": "the graph optimised ahead of time",
    "int8-dynamic": "INT8 weights, activations quantised as they come",
    "int8-static": "INT8 weights and activations, calibrated on training rows",
}
"""The variants by name, in the order in which they are tried."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of one form of a model.

    latency_us: rows in the batch -> median of the model's own time on one thread. metrics: of the held-out rows.
    """

    size_bytes: Annotated[int, msgspec.Meta(gt=0)]
    latency_us: dict[int, Annotated[float, msgspec.Meta(gt=0)]]
    metrics: dict[str, float]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One variant, made or not. `figures`, `model` and `parity` are absent where it could not be made: `note` says why.

    model: the digest of the ONNX file. parity: of what it says itself about the rows of the run's parity sample.
    apart: the largest difference of such an answer from the original's.
    """

    name: str
    note: str
    figures: Figures | None = None
    model: str = ""
    parity: str = ""
    apart: float | None = None

    @property
    def what(self) -> str:
        return VARIANTS[self.name]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """All that was tried for one model.

    noise: rows in the batch -> by how much two sessions of the very same original differ, as a share: no gain below
    it can be told. rounds: how often each was timed, in turns.
    """

    original: Figures
    variants: tuple[Variant, ...]
    noise: dict[int, float]
    rounds: dict[int, int]
    holdout_rows: int
    calibration_rows: int
    environment: Environment
    isolation: tuple[str, ...] = ()
