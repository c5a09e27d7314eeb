"""Bus on Redis streams: consumer groups, and scripts that acknowledge, recognise and publish in one step.

A topic is a stream of its name. taut's own entries have one field, `event`, a structured CloudEvent; entries of others
may have that, or the attributes as fields `ce_id`, `ce_source` … with `data` beside them, or `data` alone.

An output is added only where the acknowledgement of its delivery succeeds in the same script, so that a delivery that
was repeated has one effect however late it comes. Events that were published twice are known by their keys, of which
two sets of `window` each are kept beside a topic, the older one dropped when the newer is full.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import redis

from taut.adapters.bus.messages import delivered, structured
from taut.adapters.redis_server import BUSY, open_redis
from taut.core.cloudevents import Event, bare_event, check_json, encode_event, from_attributes, is_json
from taut.core.errors import InvalidInput, Unavailable
from taut.ports.bus import WAITING_COUNTED, Delivery, Settled, TopicState, check_name
from taut.ports.world import Clock, Random

_ADD: Final = """
local generation = {}
local function add(topic, key, event, window)
  local base = topic .. ':taut:'
  local now = generation[topic]
  if not now then
    now = redis.call('GET', base .. 'generation') or '0'
    generation[topic] = now
  end
  local other = now == '0' and '1' or '0'
  if redis.call('SISMEMBER', base .. other, key) == 1 or redis.call('SADD', base .. now, key) == 0 then
    return 0
  end
  redis.call('XADD', topic, '*', 'event', event)
  if redis.call('SCARD', base .. now) >= window then
    redis.call('UNLINK', base .. other)
    redis.call('SET', base .. 'generation', other)
    generation[topic] = other
  end
  return 1
end
"""
_PUBLISH: Final = (
    _ADD
    + """
local published = 0
for i = 2, #ARGV, 2 do
  published = published + add(KEYS[1], ARGV[i], ARGV[i + 1], tonumber(ARGV[1]))
end
return published
"""
)
_SETTLE: Final = (
    _ADD
    + """
local group, window = ARGV[1], tonumber(ARGV[2])
local published, i = 0, 3
while i <= #ARGV do
  local count = tonumber(ARGV[i + 1])
  local mine = redis.call('XACK', KEYS[1], group, ARGV[i]) == 1
  i = i + 2
  for _ = 1, count do
    if mine then
      published = published + add(KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2], window)
    end
    i = i + 3
  end
end
return published
"""
)
_WAITING: Final = "return #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])"
_LEAVE: Final = """
local waiting = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if #waiting == 0 then redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2]) end
return 0
"""
_LONGEST_WAIT_S: Final = 5.0
_TIMEOUT_S: Final = 10.0


class RedisBus:
    """Topics on one Redis server (not a cluster: a script touches several keys).

    url: `redis://` or `rediss://` with the database's number. window: how many of a topic's last events are known
    again by their keys; up to twice as many. lease_s: how long a consumer may hold what it was handed.
    Durable as the server is: `appendonly yes` and `appendfsync always` keep what was acknowledged over a power cut.
    """

    def __init__(
        self, url: str, clock: Clock, random: Random, *, window: int = 1_000_000, lease_s: float = 30.0
    ) -> None:
        self._client: Any = open_redis(url, "Redis", timeout_s=_TIMEOUT_S)
        for command in ("XREADGROUP", "XAUTOCLAIM", "XCLAIM", "XPENDING", "XINFO GROUPS", "XRANGE"):
            self._client.set_response_callback(command, lambda reply, **_: reply)
        self._clock: Final = clock
        self._random: Final = random
        self._window: Final = window
        self._lease_s: Final = lease_s
        self._publish: Final = self._client.register_script(_PUBLISH)
        self._waiting: Final = self._client.register_script(_WAITING)

    def publish(self, topic: str, events: Sequence[Event]) -> int:
        check_name("topic", topic)
        arguments: list[str | bytes | int] = [self._window]
        for event in events:
            if is_json(event.content_type):
                check_json(event.data)
            arguments += [event.key, encode_event(event)]
        return int(_asked(partial(self._publish, keys=[topic], args=arguments)))

    def subscribe(self, topic: str, group: str) -> RedisSubscription:
        check_name("topic", topic)
        check_name("group", group)
        return RedisSubscription(
            self._client, self._clock, topic, group, consumer=self._random.bytes(12).hex(), window=self._window,
            lease_s=self._lease_s,
        )  # fmt: skip

    def peek(self, topic: str, group: str, *, limit: int) -> list[Delivery]:
        handed, _ = self._group(topic, group)
        ask = partial(self._client.execute_command, "XRANGE", topic, f"({handed}", "+", "COUNT", limit)
        return [_delivery(topic, entry) for entry in _asked(ask)]

    def state(self, topic: str, group: str) -> TopicState:
        length = int(_asked(partial(self._client.xlen, topic)))
        handed, pending = self._group(topic, group)
        waiting = _asked(partial(self._waiting, keys=[topic], args=[handed, WAITING_COUNTED]))
        return TopicState(length=length, waiting=int(waiting), pending=pending)

    def _group(self, topic: str, group: str) -> tuple[str, int]:
        """Return the last entry that was handed to the group, and how many it has not settled."""
        try:
            found = _asked(partial(self._client.execute_command, "XINFO GROUPS", topic))
        except InvalidInput:
            return "0-0", 0  # no such topic yet
        for fields in found:
            of = {bytes(name).decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}
            if of["name"].decode() == group:
                return of["last-delivered-id"].decode(), int(of["pending"])
        return "0-0", 0

    def close(self) -> None:
        self._client.close()


class RedisSubscription:
    """One consumer of a group."""

    def __init__(
        self, client: Any, clock: Clock, topic: str, group: str, *, consumer: str, window: int, lease_s: float
    ) -> None:
        self._client: Final = client
        self._clock: Final = clock
        self._topic: Final = topic
        self._group: Final = group
        self._consumer: Final = consumer
        self._window: Final = window
        self._lease_ms: Final = int(lease_s * 1000)
        self._look_again_s: Final = lease_s / 4
        self._looked_s = float("-inf")
        self._held: Final[set[str]] = set()
        self._lock: Final = threading.Lock()
        self._settle: Final = client.register_script(_SETTLE)
        self._leave: Final = client.register_script(_LEAVE)
        self._join()

    def receive(self, *, limit: int, wait_s: float) -> list[Delivery]:
        try:
            found = self._take_over(limit) or self._read(limit, wait_s)
        except _NoGroup:  # the server forgot it: it was emptied, or restarted without persistence
            self._join()
            return []
        with self._lock:
            self._held.update(delivery.position for delivery in found)
        return found

    def settle(self, settled: Sequence[Settled]) -> int:
        keys = {self._topic: 1}
        arguments: list[str | bytes | int] = [self._group, self._window]
        for item in settled:
            arguments += [item.delivery.position, len(item.outputs)]
            for output in item.outputs:
                place = keys.setdefault(output.topic, len(keys) + 1)
                arguments += [place, output.event.key, encode_event(output.event)]
        published = int(_asked(partial(self._settle, keys=list(keys), args=arguments)))
        with self._lock:
            self._held.difference_update(item.delivery.position for item in settled)
        return published

    def close(self) -> None:
        _asked(partial(self._leave, keys=[self._topic], args=[self._group, self._consumer]))

    def _join(self) -> None:
        try:
            _asked(partial(self._client.xgroup_create, self._topic, self._group, id="0", mkstream=True))
        except _AlreadyThere:
            return

    def _take_over(self, limit: int) -> list[Delivery]:
        """Take what others held too long."""
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s < self._look_again_s:
            return []
        self._renew()
        claim = partial(
            self._client.execute_command, "XAUTOCLAIM", self._topic, self._group, self._consumer, self._lease_ms, "0-0",
            "COUNT", limit,
        )  # fmt: skip
        again = [entry for entry in _asked(claim)[1] if entry and entry[0] is not None]
        if not again:
            self._looked_s = now_s  # nothing more to take: look at what is new for a while
            return []
        counts = partial(
            self._client.execute_command, "XPENDING", self._topic, self._group, again[0][0], again[-1][0], 2 * limit,
            self._consumer,
        )  # fmt: skip
        times = {id_: int(count) for id_, _, _, count in _asked(counts)}
        return [_delivery(self._topic, entry, attempts=times.get(entry[0], 1) - 1) for entry in again]

    def _renew(self) -> None:
        """Renew the lease of what this consumer holds, without counting that as a delivery."""
        with self._lock:
            held = set(self._held)
        if not held:
            return
        ask = partial(
            self._client.execute_command,
            "XPENDING",
            self._topic,
            self._group,
            "-",
            "+",
            len(held),
            self._consumer,
        )
        mine = [id_ for id_, _, _, _ in _asked(ask) if id_.decode() in held]
        if mine:
            claim = ("XCLAIM", self._topic, self._group, self._consumer, 0, *mine, "JUSTID")
            _asked(partial(self._client.execute_command, *claim))

    def _read(self, limit: int, wait_s: float) -> list[Delivery]:
        wait_ms = max(1, int(min(wait_s, _LONGEST_WAIT_S) * 1000))
        read = partial(
            self._client.execute_command, "XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", limit, "BLOCK",
            wait_ms, "STREAMS", self._topic, ">",
        )  # fmt: skip
        found = _asked(read)
        return [_delivery(self._topic, entry) for entry in found[0][1]] if found else []


class _NoGroup(Unavailable):
    """The group is not there: join again."""


class _AlreadyThere(InvalidInput):
    """The group is there."""


def _delivery(topic: str, entry: list[Any], *, attempts: int = 0) -> Delivery:
    position = entry[0].decode()
    fields = entry[1]
    if fields and fields[0] == b"event":
        return structured(topic, position, fields[1], attempts=attempts)
    named = dict(zip(fields[::2], fields[1::2], strict=True)) if fields else {}

    def read() -> Event:
        if b"data" not in named:
            raise InvalidInput("the entry has neither a field `event` nor a field `data`: send one of them")
        attributes = {
            name[3:].decode("utf-8", "replace"): value.decode("utf-8", "replace")
            for name, value in named.items()
            if name.startswith(b"ce_")
        }
        data = named[b"data"]
        return from_attributes(attributes, data) if attributes else bare_event(topic, position, data)

    return delivered(topic, position, named.get(b"data", b"\n".join(named)), read, attempts=attempts)


def _asked(ask: Any) -> Any:
    """Ask the server; name its errors by what can be done about them."""
    try:
        return ask()
    except redis.exceptions.ResponseError as error:
        said = str(error)
        if "NOGROUP" in said:
            raise _NoGroup(f"Redis: {said}") from error
        if "BUSYGROUP" in said:
            raise _AlreadyThere(said) from error
        if said.startswith(BUSY):
            raise Unavailable(f"Redis does not take it now: {said}") from error
        raise InvalidInput(f"Redis refused: {said}: check the names of topic and group") from error
    except (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError) as error:
        raise InvalidInput(
            f"Redis does not let us in ({error}): check user and password in its address"
        ) from error
    except (redis.exceptions.RedisError, OSError) as error:
        raise Unavailable(f"Redis does not answer ({error}): start it, or check its address") from error
