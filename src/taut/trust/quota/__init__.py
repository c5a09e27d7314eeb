"""How much a caller may use, however many gateways he asks: buckets in memory, on shares that control lends for seconds."""

from taut.trust.quota.account import Account
from taut.trust.quota.allowance import ROLE, Allowance, Price, throttle, throttle_key
from taut.trust.quota.buckets import Quota
from taut.trust.quota.budgets import Budgets, Row, State
from taut.trust.quota.leases import Holder, Leases, Terms
from taut.trust.quota.limit import WHOLE, Kind, Limit, budget, digest_limits
from taut.trust.quota.messages import Claim, Credit, Key, KeyShare, Lease, Use, decode_claim, decode_lease
from taut.trust.quota.spent import QuotaSpent

__all__ = [
    "ROLE",
    "WHOLE",
    "Account",
    "Allowance",
    "Budgets",
    "Claim",
    "Credit",
    "Holder",
    "Key",
    "KeyShare",
    "Kind",
    "Lease",
    "Leases",
    "Limit",
    "Price",
    "Quota",
    "QuotaSpent",
    "Row",
    "State",
    "Terms",
    "Use",
    "budget",
    "decode_claim",
    "decode_lease",
    "digest_limits",
    "throttle",
    "throttle_key",
]
