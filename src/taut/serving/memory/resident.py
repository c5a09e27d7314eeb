"""One model that may be in memory, and who works with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from taut.serving.graphs import GraphModel
from taut.serving.runtime import LoadedModel
from taut.serving.workers import Lane, WorkerModel

Model = LoadedModel | WorkerModel | GraphModel


class Resident:
    """A model's place in memory, empty or not. One event loop owns it.

    key: what tells loaded models apart. name: how it is shown. model, lane: None while it is not in memory; lane also
    where it runs in this process. lanes, required_lanes: it, or those of a graph's nodes: all, and those without which it has no
    answer. keep: True never evicts it, False never loads it ahead of a request. used_ns: when it
    was asked last, by the gateway's counter. pins: how many requests work with it or wait for it; it stays while there
    is one. size_bytes, load_s: as they were measured at the last load, 0 before the first. taken_bytes: of the budget, now.
    loading: whether it is just being loaded. fault: why it cannot be.
    """

    __slots__ = (
        "_on_free", "fault", "keep", "key", "lane", "lanes", "load_s", "loading", "model", "name", "pins", "priced_ns",
        "required_lanes", "size_bytes", "taken_bytes", "used_ns", "worth",
    )  # fmt: skip

    def __init__(
        self, key: str, name: str, *, model: Model | None = None, keep: bool | None = None,
        on_free: Callable[[Resident], None] | None = None,
    ) -> None:  # fmt: skip
        self.key: Final = key
        self.name: Final = name
        self.keep = keep
        self.used_ns = 0
        self.pins = 0
        self.size_bytes = 0
        self.taken_bytes = 0
        self.load_s = 0.0
        self.loading = False
        self.fault = ""
        self.worth = 0.0
        self.priced_ns = 0
        self.model: Model | None = None
        self.lane: Lane | None = None
        self.lanes: tuple[Lane, ...] = ()
        self.required_lanes: tuple[Lane, ...] = ()
        self._on_free: Final = on_free
        self.set(model)

    def set(self, model: Model | None) -> None:
        """Put the model in, or take it out."""
        self.model = model
        self.lane = model.lane if isinstance(model, WorkerModel) else None
        self.lanes = self.required_lanes = () if self.lane is None else (self.lane,)
        if isinstance(model, GraphModel):
            self.lanes, self.required_lanes = model.lanes, model.required_lanes

    @property
    def loaded(self) -> bool:
        return self.model is not None

    @property
    def state(self) -> str:
        """Return `loaded`, `loading` or `on demand`."""
        return "loaded" if self.model is not None else "loading" if self.loading else "on demand"

    def pin(self) -> None:
        self.pins += 1

    def unpin(self) -> None:
        self.pins -= 1
        if not self.pins and self._on_free is not None:
            self._on_free(self)
