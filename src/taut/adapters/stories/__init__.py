"""Stories on a journal in Records: each step is a row, written in the transaction of the effect that it records."""

from __future__ import annotations

from taut.adapters.stories.engine import JournalStories
from taut.adapters.stories.tables import metadata

__all__ = ["JournalStories", "metadata"]
