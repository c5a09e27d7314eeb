"""Training anew by itself: what triggers look at, the story that they begin, and what keeps it from learning the wrong thing."""

from __future__ import annotations

from taut.workflows.triggers.look import FAILED, look, triggers_of, watched, with_triggers

__all__ = ["FAILED", "look", "triggers_of", "watched", "with_triggers"]
