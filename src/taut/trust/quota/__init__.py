"""How much a caller may use, however many gateways he asks: buckets in memory, on shares that control lends for seconds."""

from taut.trust.quota.buckets import Quota
from taut.trust.quota.leases import Holder, Leases, Terms
from taut.trust.quota.limit import WHOLE, Limit, digest_limits
from taut.trust.quota.messages import Claim, KeyShare, Lease, Use, decode_claim, decode_lease

__all__ = [
    "WHOLE",
    "Claim",
    "Holder",
    "KeyShare",
    "Lease",
    "Leases",
    "Limit",
    "Quota",
    "Terms",
    "Use",
    "decode_claim",
    "decode_lease",
    "digest_limits",
]
