"""Looks for structured personal data where the contract declares none, and does with it what the contract says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from taut.core.evidence import Scalar
from taut.core.schema import DType
from taut.project.manifest import DatasetSpec
from taut.trust.pii import find, redact, scan

_LOOKED_AT: Final = (DType.STRING, DType.INT)


class PiiWatch:
    """Watches the undeclared text and integer columns of a batch, every value of every row.

    `found`: column -> kind -> values, so far.
    """

    def __init__(self, spec: DatasetSpec) -> None:
        self._word = spec.contract.pii
        self._columns = [
            column.name
            for column in spec.contract.columns
            if column.personal is None
            and column.name != spec.subject
            and column.dtype in _LOOKED_AT
            and column.allowed is None  # a closed list was written down by the contract's author
        ]
        self.found: dict[str, dict[str, int]] = {}

    def watch(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Count what is found in a frame; return it, redacted where the contract says so."""
        if self._word == "keep":
            return frame
        for name in self._columns:
            kinds = scan(frame[name])
            if not kinds:
                continue
            mine = self.found.setdefault(name, {})
            for kind, finding in kinds.items():
                mine[kind] = mine.get(kind, 0) + finding.count
            if self._word == "redact":
                frame = frame.with_columns(redact(frame[name]))
        return frame


def has_pii(record: Mapping[str, Scalar]) -> bool:
    """Say whether some value of a record holds structured personal data."""
    return any(
        find(str(value)) for value in record.values() if isinstance(value, str | int) and len(str(value)) > 6
    )
