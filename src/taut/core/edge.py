"""What a device at the edge counts of its answers, and how it says so: figures, never an input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

CONFIDENCE_STEPS: Final = 20
"""Equal parts of 0 to 1 into which the confidence of answers is counted."""
_Key = TypeVar("_Key", int, str)


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the answers of a regressor, which add up; minimum and maximum are null for none."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    minimum: float | None = None
    maximum: float | None = None

    def plus(self, other: Moments) -> Moments:
        return Moments(
            count=self.count + other.count, total=self.total + other.total, squares=self.squares + other.squares,
            minimum=_either(min, self.minimum, other.minimum), maximum=_either(max, self.maximum, other.maximum),
        )  # fmt: skip


class Counts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What happened in some time, as counts that add up.

    requests, rows: answered. errors: code of the refusal -> requests. edge_rows, cloud_rows: by whom rows were answered.
    fallback_rows: the cloud was wanted for them and gave no answer in time. latency: index of the bucket (of
    `taut.serving.meters.histogram.TIME_NS`) -> requests. labels: class -> rows. confidence: index of the step -> rows, of
    the model on the device. values: of a regressor. nulls, outside: input -> rows without a value, or beyond the range
    that its dataset had.
    """

    requests: int = 0
    rows: int = 0
    errors: dict[str, int] = {}
    edge_rows: int = 0
    cloud_rows: int = 0
    fallback_rows: int = 0
    latency: dict[int, int] = {}
    labels: dict[str, int] = {}
    confidence: dict[int, int] = {}
    values: Moments | None = None
    nulls: dict[str, int] = {}
    outside: dict[str, int] = {}

    def plus(self, other: Counts) -> Counts:
        """Return both together."""
        values = self.values or other.values
        if self.values is not None and other.values is not None:
            values = self.values.plus(other.values)
        return Counts(
            requests=self.requests + other.requests,
            rows=self.rows + other.rows,
            errors=_added(self.errors, other.errors),
            edge_rows=self.edge_rows + other.edge_rows,
            cloud_rows=self.cloud_rows + other.cloud_rows,
            fallback_rows=self.fallback_rows + other.fallback_rows,
            latency=_added(self.latency, other.latency),
            labels=_added(self.labels, other.labels),
            confidence=_added(self.confidence, other.confidence),
            values=values,
            nulls=_added(self.nulls, other.nulls),
            outside=_added(self.outside, other.outside),
        )

    @property
    def empty(self) -> bool:
        return not self.requests and not self.errors


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One report of a device. The same sequence of the same device is always the same report.

    bundle: id of the bundle that answered. merged: how many further periods, which never got through on their own, it
    holds. began_us, ended_us: by the device's own clock. dropped: answers that could not be kept until they were told.
    """

    device: str
    bundle: str
    sequence: int
    began_us: int
    ended_us: int
    counts: Counts
    merged: int = 0
    dropped: int = 0


def _added(left: dict[_Key, int], right: dict[_Key, int]) -> dict[_Key, int]:
    if not right or not left:
        return left or right
    found = dict(left)
    for key, count in right.items():
        found[key] = found.get(key, 0) + count
    return found


def _either(choose: Callable[[float, float], float], left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return right if left is None else left
    return choose(left, right)
