"""Results of batch serving: chunks as they were scored, versions that are whole, rows found by their key."""

from __future__ import annotations

from taut.lifecycle.batch.results import Results
from taut.lifecycle.batch.tables import metadata
from taut.lifecycle.batch.values import Chunk, Found, NewResult, ResultInfo, Scored

__all__ = ["Chunk", "Found", "NewResult", "ResultInfo", "Results", "Scored", "metadata"]
