"""Dead letters: an event that could not be answered, whole, with the reason."""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from taut.core.cloudevents import Event, decode_event, encode_event, event_key
from taut.core.errors import InvalidInput
from taut.ports.bus import Delivery

LETTER: Final = "taut.dead-letter"
_MAX_BYTES: Final = 512 * 1024
"""What a letter keeps of a message: brokers bound a message's size, commonly at 1 MiB, and a letter must always fit."""


class Reason(msgspec.Struct, frozen=True, gc=False):
    """Why an event was put aside: a stable code, and words."""

    code: str
    message: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lies on a dead-letter topic.

    topic, position: where the message lay. event: it, as a CloudEvent; message: its bytes in base64 where it is none.
    cut_bytes: the message's size where it is too large to be kept here: it can be found in its place, not replayed.
    request_id: of the refusal in the prediction log, where there is one. replays: how often it was tried again.
    """

    endpoint: str
    reason: Reason
    topic: str
    position: str
    attempts: int = 0
    replays: int = 0
    request_id: str = ""
    cut_bytes: int = 0
    event: msgspec.Raw = msgspec.Raw(b"null")
    message: str = ""

    def delivery(self) -> Delivery:
        """Return what was put aside as it was delivered."""
        raw = bytes(self.event)
        if self.cut_bytes:
            fault = f"{self.reason.message} (its {self.cut_bytes:,} bytes are too many for a dead letter)"
            return Delivery(topic=self.topic, position=self.position, event=None, fault=fault)
        if raw != b"null":
            event = decode_event(raw)
            return Delivery(topic=self.topic, position=self.position, event=event, raw=raw)
        try:
            raw = base64.b64decode(self.message, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        return Delivery(
            topic=self.topic, position=self.position, event=None, raw=raw, fault=self.reason.message
        )


_DECODE: Final = msgspec.json.Decoder(DeadLetter).decode


def make_letter(
    delivery: Delivery, reason: Reason, *, endpoint: str, time: str, request_id: str = "", replays: int = 0
) -> Event:
    """Return the letter about a delivery. Its id is the same each time the same message is put aside."""
    event = delivery.event
    source, id_ = (
        (f"topic:{delivery.topic}", delivery.position) if event is None else (event.source, event.id)
    )
    kept = encode_event(event) if event is not None else base64.b64encode(delivery.raw)
    cut = len(kept) > _MAX_BYTES
    letter = DeadLetter(
        endpoint=endpoint, reason=reason, topic=delivery.topic, position=delivery.position,
        attempts=delivery.attempts, replays=replays, request_id=request_id, cut_bytes=len(kept) if cut else 0,
        event=msgspec.Raw(b"null" if event is None or cut else kept),
        message="" if event is not None or cut else kept.decode("ascii"),
    )  # fmt: skip
    return Event(
        id=event_key("dead", endpoint, source, id_, str(replays)), source=f"taut/endpoints/{endpoint}", type=LETTER,
        data=msgspec.json.encode(letter), time=time, inputid=id_, inputsource=source,
    )  # fmt: skip


def read_letter(event: Event | None) -> DeadLetter:
    """Return the letter in an event. Raises InvalidInput for an event that is none."""
    if event is None or event.type != LETTER:
        raise InvalidInput("what lies here is no dead letter: name the topic that a stream puts them on")
    try:
        return _DECODE(event.data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f"the dead letter cannot be read: {error}") from error
