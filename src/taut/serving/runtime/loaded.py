"""A model in this process, whatever its form: columns in, checked outputs out, its cost measured once."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.schema import DType, ModelSignature
from taut.serving.runtime.encode import Feed
from taut.serving.runtime.form import Cost, ModelForm
from taut.serving.runtime.outputs import Outputs
from taut.serving.runtime.rows import Value

_MEASURED_ROWS: Final = 64
_SLOW_US: Final = 2000.0
_SLOW_ROWS: Final = 8
_VERY_SLOW_US: Final = 100_000.0
_VERY_SLOW_ROWS: Final = 2
_ENOUGH_S: Final = 0.5


class LoadedModel(ModelForm):
    """A model in memory. It does no input or output. A subclass measures its cost once it can run.

    counter_s: by what that is timed.
    """

    counter_s: Callable[[], float] = staticmethod(time.perf_counter)

    @abstractmethod
    def raw(self, feed: Feed) -> npt.NDArray[Any]:
        """Run tensors made by `encode` and return what comes back, unchecked. Raises BadAnswer."""

    def infer(self, columns: Mapping[str, Sequence[Value]]) -> Outputs:
        """Score columns by name, all of one length; others than the model's inputs are ignored.

        Raises InvalidInput for a column that is absent or does not fit; BadAnswer for what the signature rules out.
        """
        missing = [item.column.name for item in self.signature.inputs if item.column.name not in columns]
        if missing:
            raise InvalidInput(f"columns {', '.join(missing)} are missing: the model needs them")
        ordered = [columns[item.column.name] for item in self.signature.inputs]
        counts = {len(values) for values in ordered}
        if len(counts) != 1:
            raise InvalidInput(
                f"columns have {sorted(counts)} rows: send the same number of rows in each column"
            )
        values = list(zip(*ordered, strict=True)) if self.row_major else ordered
        return self.run(self.encode(values), counts.pop())

    def run(self, feed: Feed, count: int) -> Outputs:
        """Run tensors made by `encode` and check what comes back."""
        return self.check(self.raw(feed), count)

    def measure(self) -> Cost | None:
        """Fit A + B n on neutral values; also warms the session. None when the model refuses neutral values.

        A slow model is measured with a few rows only: loading must not take longer than a moment.
        """
        try:
            one_us = self._best_us(1)
            rows = (
                _MEASURED_ROWS
                if one_us < _SLOW_US
                else _SLOW_ROWS
                if one_us < _VERY_SLOW_US
                else _VERY_SLOW_ROWS
            )
            many_us = self._best_us(rows)
        except Exception:  # noqa: BLE001 - a model may rightly refuse values that no row has; then no fit
            return None
        row_us = max(0.0, (many_us - one_us) / (rows - 1))
        return Cost(base_us=max(0.0, one_us - row_us), row_us=row_us)

    def neutral(self, count: int) -> Feed:
        """Return the tensors of so many rows of neutral values. Raises InvalidInput where the model has none."""
        values = [_NEUTRAL[item.column.dtype] for item in self.signature.inputs]
        return self.encode([values] * count if self.row_major else [[value] * count for value in values])

    def _best_us(self, rows: int) -> float:
        feed = self.neutral(rows)
        best_s, spent_s = float("inf"), 0.0
        for _ in range(4):
            start_s = self.counter_s()
            self.raw(feed)
            took_s = self.counter_s() - start_s
            best_s, spent_s = min(best_s, took_s), spent_s + took_s
            if spent_s > _ENOUGH_S:
                break
        return best_s * 1e6


_NEUTRAL: Final[dict[DType, Value]] = {
    DType.BOOL: False, DType.INT: 0, DType.FLOAT: 0.0, DType.STRING: "", DType.DATE: 0, DType.DATETIME: 0,
}  # fmt: skip


def check_signature(signature: ModelSignature) -> None:
    """Raise InvalidInput for a signature that contradicts itself."""
    request = {column.name for column in signature.request}
    names = [item.column.name for item in signature.inputs]
    if not names or len(set(names)) != len(names):
        raise InvalidInput("the signature must name at least one input, and each once")
    sets = {lookup.feature_set for lookup in signature.lookups}
    for item in signature.inputs:
        if item.feature_set is None and item.column.name not in request:
            raise InvalidInput(f"input {item.column.name!r} is neither a request column nor a feature")
        if item.feature_set is not None and item.feature_set not in sets:
            raise InvalidInput(
                f"input {item.column.name!r}: feature set {item.feature_set!r} has no lookup in the signature"
            )
    for lookup in signature.lookups:
        unknown = sorted(set(lookup.keys) - request)
        if unknown:
            raise InvalidInput(f"lookup in {lookup.feature_set!r}: {unknown[0]!r} is no request column")
