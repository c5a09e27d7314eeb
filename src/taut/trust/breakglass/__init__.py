"""Acting in an emergency: for a time, for a reason, under the built-in policies alone, and never quietly."""

from taut.trust.breakglass.glass import MAX_TTL, BreakGlass, Glass, emergency, holding, is_emergency
from taut.trust.breakglass.tables import metadata

__all__ = ["MAX_TTL", "BreakGlass", "Glass", "emergency", "holding", "is_emergency", "metadata"]
