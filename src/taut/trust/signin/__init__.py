"""How people prove who they are, and the sessions that follow."""

from taut.trust.signin.accounts import Accounts, Factors, NewTotp
from taut.trust.signin.ceremonies import Ceremonies
from taut.trust.signin.passwords import Cost, Passwords
from taut.trust.signin.sessions import PREFIX, Session, SessionKind, Sessions, Started
from taut.trust.signin.tables import metadata

__all__ = [
    "PREFIX",
    "Accounts",
    "Ceremonies",
    "Cost",
    "Factors",
    "NewTotp",
    "Passwords",
    "Session",
    "SessionKind",
    "Sessions",
    "Started",
    "metadata",
]
