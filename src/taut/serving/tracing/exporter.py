"""Delivers spans from a thread of its own: batches, a few tries, and what cannot be delivered is counted and let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from taut.core.errors import TautError, Unavailable
from taut.ports.world import Random
from taut.serving.tracing.otlp import Resource, encode_spans
from taut.serving.tracing.tracer import Tracer

Send = Callable[[bytes], int]
"""Delivers one export request and returns how many of its spans the collector refused.

Raises Unavailable when trying again may help, another TautError when not.
"""
OnTrouble = Callable[[TautError], None]
"""Hears of the first failure of a series."""

_EVERY_S: Final = 1.0
_BATCH: Final = 256
_TRIES: Final = 4
_PAUSE_S: Final = 0.5
_PAUSE_MAX_S: Final = 30.0


class Exporter:
    """A context manager; at its end one last batch is delivered, if that needs no second try.

    every_s: how long spans wait at most before a delivery begins.
    """

    def __init__(
        self,
        tracer: Tracer,
        send: Send,
        *,
        resource: Resource,
        random: Random,
        on_trouble: OnTrouble,
        every_s: float = _EVERY_S,
    ) -> None:
        self._tracer: Final = tracer
        self._send: Final = send
        self._resource: Final = resource
        self._random: Final = random
        self._on_trouble: Final = on_trouble
        self._every_s: Final = every_s
        self._stop: Final = threading.Event()
        self._in_trouble = False
        self._thread: Final = threading.Thread(target=self._run, name="traces", daemon=True)

    def __enter__(self) -> Exporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=2 * _EVERY_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            while self._deliver():
                pass
        self._deliver()

    def _deliver(self) -> bool:
        """Deliver one batch; return whether more may be waiting and can go."""
        requests = self._tracer.take(_BATCH)
        if not requests:
            return False
        spans = sum(request.spans for request in requests)
        # the path runs in this process: no more than a few requests' spans are written without letting it go on
        data = encode_spans(requests, self._resource, self._random, breathe=_let_others_work)
        pause_s = _PAUSE_S
        for _ in range(_TRIES):
            try:
                refused = min(spans, self._send(data))
            except Unavailable as error:
                self._say(error)
                if self._stop.wait(min(_PAUSE_MAX_S, max(pause_s, error.retry_after_s))):
                    break
                pause_s *= 2
            except TautError as error:
                self._say(error)
                break
            else:
                self._in_trouble = False
                self._tracer.exported += spans - refused
                self._tracer.failed += refused
                return len(requests) == _BATCH
        self._tracer.failed += spans
        return False

    def _say(self, error: TautError) -> None:
        if not self._in_trouble:
            self._in_trouble = True
            self._on_trouble(error)


def _let_others_work() -> None:
    time.sleep(0)
