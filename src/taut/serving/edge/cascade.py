"""Asking the cloud where the device is unsure: in time or not at all, and not for long where nobody answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

import msgspec

from taut.core.errors import InvalidInput, TautError, Unavailable
from taut.core.schema import ModelSignature
from taut.serving.edge.calling import Caller
from taut.serving.gateway.answers import class_name
from taut.serving.gateway.breakers import Breaker, BreakerSettings
from taut.serving.runtime.outputs import Label
from taut.serving.runtime.rows import Value

THREADS: Final = 8
BREAKER: Final = BreakerSettings(window_s=30.0, requests=3, share=0.5, cool_down_s=2.0, cool_down_max_s=60.0)
_CALLER: Final = "edge"
_LEAST_S: Final = 0.005
"""Nobody far away answers sooner, and an answer takes so long to leave."""
_LONGER_S: Final = 1.0
"""So much later a thread gives its socket up: whose patience ended first is then no matter of chance."""
_SLACK: Final = 1e-3


class CloudAnswer(NamedTuple):
    """What the cloud said about some rows. version: of its model; request_id: of its answer there."""

    labels: list[Label]
    probabilities: list[list[float]]
    version: str
    request_id: str


class _Row(msgspec.Struct, frozen=True):
    label: str | int | bool
    probability: float | dict[str, float]


class _Answer(msgspec.Struct, frozen=True):
    predictions: list[_Row]
    request_id: str
    model_version: str


class Cloud:
    """The endpoint that is asked again. One event loop owns it.

    threshold: the least probability of its class with which the device's own answer stands. columns: what of a row is
    sent, which are the columns of the endpoint's requests.
    Raises InvalidInput for a model that gives no probabilities, whose answers have no confidence.
    """

    def __init__(
        self, caller: Caller, signature: ModelSignature, *, columns: Sequence[str], threshold: float, timeout_s: float,
        counter_ns: Callable[[], int],
    ) -> None:  # fmt: skip
        if signature.output != "probability":
            raise InvalidInput(
                "this model gives a value and no probabilities, so that no answer of it has a confidence: serve it "
                "without --cloud"
            )
        if not 0.0 < threshold <= 1.0:
            raise InvalidInput(f"--confidence is {threshold:g}: choose more than 0 and at most 1")
        self.threshold: Final = threshold
        self.breaker: Final = Breaker("cloud", BREAKER)
        self.trouble = ""
        self._caller: Final = caller
        self._signature: Final = signature
        self._columns: Final = tuple(columns)
        names = [column.name for column in signature.request]
        self._places: Final = [names.index(name) for name in columns]
        self._timeout_s: Final = timeout_s
        self._counter_ns: Final = counter_ns
        self._pool: Final = ThreadPoolExecutor(THREADS, thread_name_prefix="cloud")
        self._busy = 0

    def unsure(self, probabilities: Sequence[Sequence[float]]) -> list[int]:
        """Return which rows are to be asked again."""
        return [at for at, row in enumerate(probabilities) if max(row) < self.threshold]

    async def ask(
        self, rows: Sequence[Sequence[Value]], *, within_s: float | None = None
    ) -> CloudAnswer | None:
        """Ask about rows; None where no answer came in time, or nobody was asked since nobody has answered of late."""
        timeout_s = self._timeout_s if within_s is None else min(self._timeout_s, within_s - _LEAST_S)
        hurried = timeout_s < self._timeout_s / 2
        if timeout_s < _LEAST_S or self._busy >= THREADS:
            return None
        permit = self.breaker.enter(self._counter_ns())
        if not permit:
            return None
        body = msgspec.json.encode(
            {
                "instances": [
                    dict(zip(self._columns, [row[at] for at in self._places], strict=True)) for row in rows
                ]
            }
        )
        self._busy += 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._call, body, len(rows), timeout_s + _LONGER_S)
        future.add_done_callback(lambda _: _in_loop(loop, self._freed))
        try:
            async with asyncio.timeout(timeout_s):
                found = await asyncio.wrap_future(future)
        except TimeoutError:
            if hurried:  # the caller's own haste says nothing of the cloud
                self.breaker.left(permit, self._counter_ns())
                return None
            self._failed(permit, f"no answer within {timeout_s * 1000:.0f} ms")
            return None
        except InvalidInput as error:  # it does not take these rows; it is there
            self.trouble = error.message
            self.breaker.left(permit, self._counter_ns())
            return None
        except TautError as error:
            self._failed(permit, error.message)
            return None
        self.trouble = ""
        self.breaker.succeeded(permit, _CALLER, self._counter_ns())
        return found

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _freed(self) -> None:
        self._busy -= 1

    def _failed(self, permit: int, why: str) -> None:
        self.trouble = why
        self.breaker.failed(permit, _CALLER, self._counter_ns(), why)

    def _call(self, body: bytes, count: int, timeout_s: float) -> CloudAnswer:
        found = self._caller.post(body, timeout_s=timeout_s)
        if found.status == 422:
            raise InvalidInput(
                f"{self._caller.where} does not take the rows of this model: another model answers there"
            )
        if found.status != 200:
            raise Unavailable(f"{self._caller.where} answered {found.status}")
        try:
            answer = msgspec.json.decode(found.body, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Unavailable(
                f"{self._caller.where} answered, but not as an endpoint does: {error}"
            ) from error
        if len(answer.predictions) != count:
            raise Unavailable(f"{self._caller.where} answered {len(answer.predictions)} of {count} rows")
        probabilities = [_probabilities(row, self._signature) for row in answer.predictions]
        labels: list[Any] = [row.label for row in answer.predictions]
        return CloudAnswer(labels, probabilities, answer.model_version[:128], answer.request_id[:64])


def _in_loop(loop: asyncio.AbstractEventLoop, do: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # it ended while the cloud was still being asked
        loop.call_soon_threadsafe(do)


def _probabilities(row: _Row, signature: ModelSignature) -> list[float]:
    """Return a row's probabilities in the order of the classes. Raises Unavailable for an answer of other classes."""
    classes = signature.classes
    if isinstance(row.probability, dict):
        found = [row.probability.get(class_name(label), -1.0) for label in classes]
    else:
        found = [1.0 - row.probability, row.probability]
    fits = (
        len(found) == len(classes)
        and all(value >= -_SLACK for value in found)
        and abs(sum(found) - 1) < _SLACK
    )
    if not fits or row.label not in classes:
        raise Unavailable(
            "the cloud's model has other classes than this one: ask an endpoint of the same question"
        )
    return found
