"""What the nodes of a graph did for one request: for the trace, the meters, the record and the answer's marks."""

from __future__ import annotations

from collections.abc import Callable

from taut.serving.meters import EndpointMeter
from taut.serving.predictions import WITHOUT
from taut.serving.runtime import Outcome, Outputs
from taut.serving.runtime.graph import Said


class NodeWork:
    """One request's nodes. marks: (node, begin, end) by the gateway's counter. answered, without: of the last outcome.
    workers: that answered for them."""

    __slots__ = ("_counter_ns", "_meter", "answered", "marks", "without", "workers")

    def __init__(self, meter: EndpointMeter, counter_ns: Callable[[], int]) -> None:
        self._meter = meter
        self._counter_ns = counter_ns
        self.marks: list[tuple[str, int, int]] = []
        self.answered: tuple[str, ...] = ()
        self.without: tuple[str, ...] = ()
        self.workers: list[str] = []

    def begin(self) -> int:
        return self._counter_ns()

    def end(self, node: str, began: int, said: Said) -> None:
        ended = self._counter_ns()
        self.marks.append((node, began, ended))
        self._meter.node(node).observe(ended - began, failed=not isinstance(said, Outputs))

    def done(self, outcome: Outcome, versions: dict[str, str]) -> Outputs:
        """Note which nodes answered. versions: node -> how the record names it."""
        self.answered = tuple(versions[name] for name in outcome.answered)
        self.without = outcome.without
        for name in outcome.without:
            self._meter.node(name).left_out += 1
        return outcome.outputs

    @property
    def fallback(self) -> str:
        """Return how an answer says which nodes it was made without; an empty text where all are in it."""
        return f"{WITHOUT}{','.join(self.without)}" if self.without else ""
