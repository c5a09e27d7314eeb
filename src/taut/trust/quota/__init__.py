"""How much a caller may use: token buckets in memory, bounded, on injected time."""

from taut.trust.quota.buckets import Limit, Quota

__all__ = ["Limit", "Quota"]
