"""A model on an accelerator, with the CPU behind it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy.typing as npt

from taut.core.devices import CPU
from taut.serving.errors import BadAnswer
from taut.serving.placement.choice import SAID_LENGTH, Move, Placement
from taut.serving.runtime import Feed, LoadedModel


class PlacedModel(LoadedModel):
    """A model that runs on an accelerator until that fails, and on the CPU from then on. One thread at a time.

    placement: where it runs now. Guarantees: whatever the CPU can answer is answered; a failure that the CPU shares is the
    model's own, and moves nothing. Not guaranteed: that a device which answers nonsense is found while it serves; its answers
    were compared with the CPU's when it was loaded.
    It never goes back: a process whose device failed may not be able to use it again (a lost CUDA context stays lost), so
    a fresh worker tries.
    """

    def __init__(self, chosen: LoadedModel, reference: LoadedModel, placement: Placement) -> None:
        super().__init__(chosen.signature, chosen.tensors)
        self.cost = chosen.cost
        self.placement = placement
        self._chosen: LoadedModel | None = chosen
        self._reference: Final = reference
        self._moved: Move | None = None

    def raw(self, feed: Feed) -> npt.NDArray[Any]:
        if self._chosen is None:
            return self._reference.raw(feed)
        try:
            return self._chosen.raw(feed)
        except BadAnswer as error:
            answer = self._reference.raw(feed)
            self._fall(error)
            return answer

    def moved(self) -> Move | None:
        """Return where it moved since this was asked last, or None."""
        found, self._moved = self._moved, None
        return found

    def _fall(self, error: BadAnswer) -> None:
        self._chosen = None
        self.cost = self._reference.cost
        said = f"{self.placement.device} failed while it served: {error.__cause__ or error}"
        self.placement = msgspec.structs.replace(self.placement, device=CPU, lost=said[:SAID_LENGTH])
        self._moved = Move(placement=self.placement, cost=self.cost)
