"""A sample of distinct units that any number of gateways can draw apart and control put together: those of the smallest marks."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappush, heapreplace
from typing import Final


class Sketch:
    """At most `most` units by their marks, each with its arm; of more, those with the smallest marks.

    A unit's mark is independent of its arm, so that the sample's arms are those of all units, however many there were; and
    the union of sketches, cut to `most`, is the sketch of the union: a unit that asks two gateways is one.
    Source: Bar-Yossef et al. 2002 (k minimum values).
    """

    __slots__ = ("_heap", "_most", "marks")

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self.marks: Final[dict[int, bool]] = {}
        self._heap: Final[list[int]] = []  # of the marks below zero: the highest mark comes first

    def add(self, mark: int, canary: bool) -> bool:
        """Take a unit; return whether it came into the sample just now."""
        marks = self.marks
        if mark in marks:
            return False
        if len(marks) < self._most:
            heappush(self._heap, -mark)
        elif mark < -self._heap[0]:
            del marks[-heapreplace(self._heap, -mark)]
        else:
            return False
        marks[mark] = canary
        return True

    def arms(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the marks of the canary's units and of the baseline's, each in order."""
        return marks_of(self.marks.items(), canary=True), marks_of(self.marks.items(), canary=False)


def marks_of(items: Iterable[tuple[int, bool]], *, canary: bool) -> tuple[int, ...]:
    return tuple(sorted(mark for mark, arm in items if arm is canary))
