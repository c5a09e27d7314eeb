"""What a person should look at in the ledger: unusual acts found by rules over what was done, and denials worth a leaf."""

from taut.trust.notices.denials import DENIED, Denials
from taut.trust.notices.rules import RULES, Act, Notice, Window, analyse

__all__ = ["DENIED", "RULES", "Act", "Denials", "Notice", "Window", "analyse"]
