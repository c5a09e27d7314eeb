"""Further machines: each follows control over the network, and hands back the records of what its gateways answered."""

from taut.serving.machines.artifacts import artifacts_of, place, read_part
from taut.serving.machines.link import FOLLOW_S, Call, Link, Member, check_keys, keys_of
from taut.serving.machines.records import hand_over

__all__ = [
    "FOLLOW_S",
    "Call",
    "Link",
    "Member",
    "artifacts_of",
    "check_keys",
    "hand_over",
    "keys_of",
    "place",
    "read_part",
]
