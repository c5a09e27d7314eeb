"""CloudEvents 1.0: the envelope of everything that travels over the bus, in its structured JSON form."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from taut.core.errors import InvalidInput

JSON: Final = "application/json"
STRUCTURED: Final = "application/cloudevents+json"
_VERSION: Final = "1.0"
_MAX_ID: Final = 256
_MAX_SOURCE: Final = 512


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One event. `source` and `id` together say which; two with the same are the same event.

    data: the payload's bytes; where `content_type` is JSON, one JSON value. time: RFC 3339, or empty.
    inputid, inputsource: of the event that this one answers, where it answers one. traceparent: W3C Trace Context.
    """

    id: str
    source: str
    type: str
    data: bytes = b"null"
    content_type: str = JSON
    subject: str = ""
    time: str = ""
    inputid: str = ""
    inputsource: str = ""
    traceparent: str = ""

    @property
    def key(self) -> str:
        """32 hexadecimal digits that stand for source and id: by them an event is known again."""
        return event_key(self.source, self.id)


class _Document(msgspec.Struct, omit_defaults=True, gc=False, kw_only=True):
    specversion: str
    id: str
    source: str
    type: str
    datacontenttype: str = JSON
    subject: str = ""
    time: str = ""
    inputid: str = ""
    inputsource: str = ""
    traceparent: str = ""
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    data_base64: str | msgspec.UnsetType = msgspec.UNSET


_ATTRIBUTES: Final = ("subject", "time", "inputid", "inputsource", "traceparent")
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final = msgspec.json.Decoder(_Document).decode
_ANY_JSON: Final = msgspec.json.Decoder(msgspec.Raw).decode


def event_key(*parts: str) -> str:
    """Return 32 hexadecimal digits that stand for the parts, each bounded by its length."""
    text = "\0".join([*parts, *[str(len(part)) for part in parts]])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def is_json(content_type: str) -> bool:
    """Whether a media type is JSON: `application/json` or any with the suffix `+json`."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind == JSON or kind.endswith("+json")


def check_json(data: bytes) -> None:
    """Raise InvalidInput unless `data` is exactly one JSON value."""
    try:
        _ANY_JSON(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the event's data is no JSON: {error}") from error


def encode_event(event: Event) -> bytes:
    """Return the event as a document. The data of a JSON event is taken as it is: see `check_json`."""
    json = is_json(event.content_type)
    return _ENCODE(
        _Document(
            specversion=_VERSION, id=event.id, source=event.source, type=event.type,
            datacontenttype=event.content_type, subject=event.subject, time=event.time, inputid=event.inputid,
            inputsource=event.inputsource, traceparent=event.traceparent,
            data=msgspec.Raw(event.data) if json else msgspec.UNSET,
            data_base64=msgspec.UNSET if json else base64.b64encode(event.data).decode("ascii"),
        )
    )  # fmt: skip


def decode_event(document: bytes) -> Event:
    """Return the event in a structured document. Raises InvalidInput, saying what is wrong with it."""
    try:
        found = _DECODE(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"the message is no CloudEvent: {error}") from error
    _check(found.specversion, found.id, found.source, found.type)
    if isinstance(found.data, msgspec.Raw):
        data = bytes(found.data)
    else:
        data = b"null" if found.data_base64 is msgspec.UNSET else _unpacked(str(found.data_base64))
    return Event(
        id=found.id, source=found.source, type=found.type, data=data, content_type=found.datacontenttype,
        subject=found.subject, time=found.time, inputid=found.inputid, inputsource=found.inputsource,
        traceparent=found.traceparent,
    )  # fmt: skip


def from_attributes(attributes: Mapping[str, str], data: bytes) -> Event:
    """Return the event of the binary form: attributes by name (without a broker's prefix), and the data beside them.

    Raises InvalidInput where an attribute that CloudEvents asks for is absent.
    """
    get = attributes.get
    _check(get("specversion", ""), get("id", ""), get("source", ""), get("type", ""))
    more: dict[str, Any] = {name: attributes[name] for name in _ATTRIBUTES if name in attributes}
    return Event(
        id=attributes["id"], source=attributes["source"], type=attributes["type"], data=data,
        content_type=get("datacontenttype", JSON), **more,
    )  # fmt: skip


def bare_event(topic: str, position: str, data: bytes) -> Event:
    """Return a message without an envelope as an event that its place in the topic identifies."""
    return Event(id=position, source=f"topic:{topic}", type="message", data=data)


def _check(version: str, id_: str, source: str, kind: str) -> None:
    if version != _VERSION:
        raise InvalidInput(f"the CloudEvent has specversion {version[:20]!r}: send {_VERSION}")
    for name, value, bound in (
        ("id", id_, _MAX_ID),
        ("source", source, _MAX_SOURCE),
        ("type", kind, _MAX_ID),
    ):
        if not 0 < len(value) <= bound:
            raise InvalidInput(
                f"the CloudEvent's {name} has {len(value)} characters: send one with 1 to {bound}"
            )


def _unpacked(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"the CloudEvent's data_base64 is no base64: {error}") from error
