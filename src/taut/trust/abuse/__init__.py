"""Who asks a model what honest callers do not ask: extraction, inversion, probing of membership, scraping, inputs from elsewhere."""

from taut.trust.abuse.baseline import Baseline
from taut.trust.abuse.signals import SIGNALS, Queries
from taut.trust.abuse.watch import AbuseWatch, Caller

__all__ = ["SIGNALS", "AbuseWatch", "Baseline", "Caller", "Queries"]
