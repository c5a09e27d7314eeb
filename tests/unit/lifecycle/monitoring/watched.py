"""A model version made of numbers, for tests of what watches it: two columns of requests, a feature, and two classes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from taut.lifecycle.monitoring import EndpointWatch, Reference, Tolerance, freeze, learned_of_labels

HOUR_S: Final = 3600.0
MONDAY_S: Final = 345_600.0  # 1970-01-05, the first Monday
COLUMNS: Final[dict[str, Any]] = {
    "distance": ("number", "request"),
    "carrier": ("word", "request"),
    "temp": ("number", "sky"),
}


def rows_of(rng: np.random.Generator, rows: int, *, hour: int = 0, far: float = 0.0) -> dict[str, Any]:
    """Return rows of one hour of the week. The temperature follows the hour of the day; far: how much farther than usual."""
    return {
        "distance": (rng.normal(100 + far, 20, rows)).tolist(),
        "carrier": rng.choice(["bike", "van", "truck"], rows, p=[0.6, 0.3, 0.1]).tolist(),
        "temp": (rng.normal(hour % 24, 1, rows)).tolist(),
    }


def reference_of(rows: int = 16_800, *, seed: int = 0) -> Reference:
    """Return what a version of that world knew: as many rows of each hour of the week."""
    rng = np.random.default_rng(seed)
    each = rows // 168
    found: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for hour in range(168):
        for name, values in rows_of(rng, each, hour=hour).items():
            found[name] += values
    hours = np.repeat(np.arange(168), each)
    order = rng.permutation(len(hours))
    chance = rng.uniform(size=1000)
    learned = learned_of_labels(
        np.column_stack([1 - chance, chance]), (rng.uniform(size=1000) < chance).astype(np.int64), (0, 1)
    )
    shuffled = {name: [values[one] for one in order] for name, values in found.items()}
    return freeze(
        "late@1", COLUMNS, shuffled, hours[order], order // each, learned=learned, newest_us=int(MONDAY_S * 1e6)
    )  # fmt: skip


def ask(
    watch: EndpointWatch,
    rng: np.random.Generator,
    *,
    hours: range,
    rows: int = 100,
    far: float = 0.0,
    more: dict[str, Any] | None = None,
) -> None:
    """Ask as many rows in each hour after the first Monday. more: values of columns instead of the usual ones."""
    for hour in hours:
        chance = rng.uniform(size=rows)
        said = {"(score)": chance.tolist(), "(confidence)": np.maximum(chance, 1 - chance).tolist()}
        values = {**rows_of(rng, rows, hour=hour % 168, far=far), **said, **(more or {})}
        at_s = MONDAY_S + hour * HOUR_S + np.arange(rows) * (HOUR_S / rows)
        watch.observe(watch.reference.encode(values, rows), at_s, np.full(rows, hour % 168))


def watch_of(reference: Reference, **tolerated: float) -> EndpointWatch:
    return EndpointWatch(reference, Tolerance(**tolerated))
