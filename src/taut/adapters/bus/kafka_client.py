"""What both ends of Kafka's adapter share: messages, errors by their remedy, a partition read to its end."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException

from taut.adapters.bus.messages import with_headers
from taut.core.cloudevents import STRUCTURED, Event, encode_event
from taut.core.errors import InvalidInput, Unavailable
from taut.ports.bus import Delivery

T = TypeVar("T")

ANSWER_S: Final = 10.0
_PREFIX: Final = "ce_"
_REFUSED: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.TOPIC_EXCEPTION, KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._INVALID_ARG,
    }
)  # fmt: skip


class Window:
    """The keys of the last events of a topic; the oldest are forgotten."""

    def __init__(self, size: int) -> None:
        self._size: Final = size
        self._keys: Final[OrderedDict[str, None]] = OrderedDict()

    def fresh(self, events: Iterable[Event]) -> dict[str, Event]:
        """Return those that are not known, each once, in their order."""
        return {event.key: event for event in events if event.key not in self._keys}

    def add(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._keys[key] = None
        while len(self._keys) > self._size:
            self._keys.popitem(last=False)


def message_of(event: Event) -> dict[str, Any]:
    """Return an event as `produce` takes it."""
    headers = [("content-type", STRUCTURED.encode())]
    return {"value": encode_event(event), "key": event.key, "headers": headers}


def delivery_of(message: Any) -> Delivery:
    headers = {
        name.lower(): value.decode("utf-8", "replace")
        for name, value in message.headers() or []
        if isinstance(value, bytes)
    }
    position = f"{message.partition()}:{message.offset()}"
    return with_headers(message.topic(), position, headers, message.value() or b"", prefix=_PREFIX)


def asked(ask: Callable[[], T]) -> T:
    """Ask the cluster; name its errors by what can be done about them."""
    try:
        return ask()
    except KafkaException as error:
        raise named(error.args[0]) from error


def named(error: KafkaError) -> InvalidInput | Unavailable:
    if error.code() in _REFUSED:
        return InvalidInput(
            f"Kafka refused: {error.str()}: check the names and rights, and the size of messages"
        )
    return Unavailable(f"Kafka does not answer ({error.str()}): start it, or check its address")


def read(consumer: Any, places: list[Any], *, limit: int) -> Iterable[Any]:
    """Yield messages from these places to the ends of their partitions, at most `limit`."""
    for place in places:
        if place.offset < 0:
            place.offset = OFFSET_BEGINNING
    if not places:
        return
    asked(lambda: consumer.assign(places))
    open_ = {place.partition for place in places}
    while open_ and limit > 0:
        message = asked(lambda: consumer.poll(ANSWER_S))
        if message is None:
            raise Unavailable(f"Kafka did not answer within {ANSWER_S:g} s: check its brokers")
        if message.error() is None:
            limit -= 1
            yield message
        elif message.error().code() == KafkaError._PARTITION_EOF:
            open_.discard(message.partition())
        elif not message.error().retriable():
            raise named(message.error())


def classic(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "group.protocol"}


def heard(_error: KafkaError) -> None:
    """Errors of the connection show at the next call; they are no news between calls."""
