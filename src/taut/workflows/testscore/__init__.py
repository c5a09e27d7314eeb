"""The ML Test Score of a version, computed from what the installation has evidence of."""

from __future__ import annotations

from taut.workflows.testscore.items import RULES, SECTIONS, Item, Scorecard, score_of
from taut.workflows.testscore.seen import Seen, seen_of

__all__ = ["RULES", "SECTIONS", "Item", "Scorecard", "Seen", "score_of", "seen_of"]
