"""Names of the platform's own parts, as SPIFFE writes them."""

from __future__ import annotations

import hashlib
import re
from typing import Final, Literal, get_args

import msgspec

from taut.core.errors import InvalidInput

Kind = Literal["control", "machine"]
FIRST: Final = "first"
"""Name of the machine that control runs on; no other one may be called so."""

_DOMAIN: Final = re.compile(r"[a-z0-9][a-z0-9.\-_]{0,254}")
_NAME: Final = re.compile(r"[a-z][a-z0-9_.\-]{0,62}")
_HOST_HEX: Final = 40
_HOST_END: Final = ".svid"

MAY_SPEAK_TO: Final[dict[Kind, tuple[Kind, ...]]] = {
    "machine": ("control", "machine"),
    "control": ("machine",),
}
"""Whom each kind may open a connection to; what is not here is refused. `control` is the whole first machine, its gateways
included."""


class SpiffeId(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """`spiffe://DOMAIN/KIND/NAME`. domain: the trust domain, which is one installation. name: unique in its kind."""

    domain: str
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"spiffe://{self.domain}/{self.kind}/{self.name}"

    @property
    def host(self) -> str:
        """The name under which TLS asks for exactly this part, whatever address it has.

        A digest, since a part's name need be none of DNS's. Whoever connects gives it as server name, so that TLS itself
        refuses every other part, and a listener knows a part from the public by `HOST_END`.
        """
        return hashlib.sha256(str(self).encode()).hexdigest()[:_HOST_HEX] + _HOST_END

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read one. Raises InvalidInput for any other URI, also for other spellings of a sound one."""
        scheme, _, rest = text.partition("://")
        parts = rest.split("/")
        if (
            scheme != "spiffe"
            or len(parts) != 3
            or not _DOMAIN.fullmatch(parts[0])
            or parts[1] not in get_args(Kind)
            or not _NAME.fullmatch(parts[2])
        ):
            raise InvalidInput(
                f"{text[:120]!r} names no part: spiffe://DOMAIN/KIND/NAME, KIND one of {', '.join(get_args(Kind))}"
            )
        kind: Kind = "control" if parts[1] == "control" else "machine"
        return cls(domain=parts[0], kind=kind, name=parts[2])


def may_speak_to(kind: Kind) -> tuple[Kind, ...]:
    """Return the kinds that may open a connection to one of `kind`."""
    return tuple(one for one, others in MAY_SPEAK_TO.items() if kind in others)


def is_part_host(name: str | None) -> bool:
    """Whether a server name is one by which parts ask for each other."""
    return name is not None and name.endswith(_HOST_END)


def check_machine_name(name: str) -> str:
    """Return a name that a further machine may have. Raises InvalidInput otherwise."""
    if not _NAME.fullmatch(name) or name == FIRST:
        raise InvalidInput(
            f"a machine cannot be called {name[:80]!r}: begin with a letter, use a-z, 0-9, '_', '.', '-', at most 63, and "
            f"leave {FIRST!r} to the machine that control runs on"
        )
    return name
