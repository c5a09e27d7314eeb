"""Coroutines that are begun where they are made, so that what turns out to need no waiting needs no task."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, Final, TypeVar

T = TypeVar("T")


class Begun(Generator[Any, Any, T], Coroutine[Any, Any, T]):
    """A coroutine that stands at its first wait already. Whoever awaits it, or makes a task of it, carries on from there.

    Guarantees: nothing of it runs twice, and what is thrown in before it was awaited, as by a task that is cancelled before
    its first step, arrives at the wait where it stands.
    """

    __slots__ = ("_coroutine", "_waits_for")

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: object) -> None:
        self._coroutine: Final = coroutine
        self._waits_for = waits_for  # None once somebody was told

    def __await__(self) -> Begun[T]:
        return self

    def send(self, value: Any) -> Any:
        waits_for, self._waits_for = self._waits_for, None
        return self._coroutine.send(value) if waits_for is None else waits_for

    def throw(self, *error: Any) -> Any:
        self._waits_for = None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()


def begin(coroutine: Coroutine[Any, Any, T]) -> T | Begun[T]:
    """Run a coroutine to its first wait; return what it returned, or what carries on with it. Raises what it raises.

    There is no current task until then: for coroutines that wait for plain futures first, and never for
    `asyncio.timeout` and its like.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    return Begun(coroutine, waits_for)
