"""What a candidate is examined for beyond its metrics, by rules that its builder declares; computed in a job without his code."""

from __future__ import annotations

from taut.lifecycle.registry.examination.robustness import probes_for, shuffles
from taut.lifecycle.registry.examination.rules import EXAMINED, LEARNED, examine
from taut.lifecycle.registry.examination.sight import Again, Sight

__all__ = ["EXAMINED", "LEARNED", "Again", "Sight", "examine", "probes_for", "shuffles"]
