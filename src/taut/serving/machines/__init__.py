"""Further machines: each follows control over the network, and hands back the records of what its gateways answered."""

from taut.serving.machines.artifacts import artifacts_of, place, read_part
from taut.serving.machines.link import FOLLOW_S, Call, Link, Member, carry, take_keys
from taut.serving.machines.records import hand_over

__all__ = [
    "FOLLOW_S",
    "Call",
    "Link",
    "Member",
    "artifacts_of",
    "carry",
    "hand_over",
    "place",
    "read_part",
    "take_keys",
]
