"""What a replica and its admission say over the connection that they have: words around the protocol's own messages."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from taut.core.errors import Corrupt
from taut.fleet.admission.messages import Invitation
from taut.fleet.admission.terms import Terms
from taut.ports.keys import PublicKey


class Join(msgspec.Struct, frozen=True, kw_only=True, tag="join"):
    """A process that has no invitation yet asks for one. Its connection says which replica it is."""


class Said(msgspec.Struct, frozen=True, kw_only=True, tag="said"):
    """A message of the protocol, signed by the replica's key."""

    data: bytes


class Welcome(msgspec.Struct, frozen=True, kw_only=True, tag="welcome"):
    """What a process needs to join. trusted: admission's keys. credentials: bearers for its probes, by what they are."""

    invitation: Invitation
    terms: Terms
    trusted: tuple[PublicKey, ...]
    credentials: dict[str, str] = {}


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """An answer of the protocol, signed by admission's key."""

    data: bytes


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused"):
    """over: this incarnation is known no more, so that its process has to begin anew; otherwise it may ask again later."""

    message: str
    over: bool


Up = Join | Said
Down = Welcome | Answered | Refused
encode: Final = msgspec.json.Encoder().encode
_UP: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(Up)
_DOWN: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(Down)


def decode_up(data: bytes) -> Up:
    """Raises Corrupt for what no replica says."""
    return _decode(_UP, data)  # type: ignore[no-any-return]


def decode_down(data: bytes) -> Down:
    """Raises Corrupt for what admission does not say."""
    return _decode(_DOWN, data)  # type: ignore[no-any-return]


def _decode(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"this is no word between a replica and its admission: {error}") from error
