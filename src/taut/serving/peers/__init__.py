"""Gateways of other machines: who of them would answer a request sooner, and the way there."""

from taut.serving.peers.balance import HERE_NEVER, Balance, Choice, Load
from taut.serving.peers.hops import Hopping, HopTls

__all__ = ["HERE_NEVER", "Balance", "Choice", "HopTls", "Hopping", "Load"]
