"""From what lies on a broker to a delivery, in the forms that CloudEvents has: structured, binary, and no envelope."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from taut.core.cloudevents import STRUCTURED, Event, bare_event, decode_event, from_attributes
from taut.core.errors import InvalidInput
from taut.ports.bus import Delivery


def delivered(
    topic: str, position: str, raw: bytes, read: Callable[[], Event], *, attempts: int = 0
) -> Delivery:
    """Return the delivery of one message; what cannot be read becomes its fault, never an exception."""
    try:
        event = read()
    except InvalidInput as error:
        return Delivery(
            topic=topic, position=position, event=None, raw=raw, fault=error.message, attempts=attempts
        )
    return Delivery(topic=topic, position=position, event=event, raw=raw, attempts=attempts)


def structured(topic: str, position: str, document: bytes, *, attempts: int = 0) -> Delivery:
    """Return the delivery of a structured document."""
    return delivered(topic, position, document, lambda: decode_event(document), attempts=attempts)


def with_headers(
    topic: str, position: str, headers: Mapping[str, str], data: bytes, *, prefix: str, attempts: int = 0
) -> Delivery:
    """Return the delivery of a message with headers: structured by its content type, binary by `prefix`, else bare.

    headers: names in lower case. prefix: `ce_` on Kafka, `ce-` on NATS.
    """

    def read() -> Event:
        if headers.get("content-type", "").startswith(STRUCTURED):
            return decode_event(data)
        found = {
            name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix)
        }
        if not found:
            return bare_event(topic, position, data)
        if "content-type" in headers:
            found["datacontenttype"] = headers["content-type"]
        return from_attributes(found, data)

    return delivered(topic, position, data, read, attempts=attempts)
