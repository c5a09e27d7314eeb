"""How the models of a snapshot come into memory: verified at every load, and measured."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from taut.core.devices import Devices
from taut.core.errors import InvalidInput
from taut.core.schema import ModelSignature
from taut.serving.gateway.artifacts import check_artifacts
from taut.serving.gateway.compiled import Stock
from taut.serving.gateway.placing import Part, model_key, named_models, place
from taut.serving.graphs import GraphModel
from taut.serving.memory import Heap, Model, Want
from taut.serving.placement import Wish, wish_for
from taut.serving.runtime import LoadedModel, load
from taut.serving.snapshot import EndpointConfig, GatewaySettings, ServedModel, ServingSnapshot
from taut.serving.workers import Fleet, WorkerModel

NO_DEVICES: Final = Devices()


class Stocking:
    """Says what a snapshot wants, and loads it. Used from several threads.

    Models in this process are loaded one at a time, so that each is measured alone. devices: on which workers may run
    models. machine: as the snapshot calls this one.
    """

    def __init__(
        self, *, home: Path, fleet: Fleet | None, heap: Heap, devices: Devices = NO_DEVICES, machine: str = ""
    ) -> None:
        self._home: Final = home
        self._fleet: Final = fleet
        self._heap: Final = heap
        self._devices: Final = devices
        self._machine: Final = machine
        self._alone: Final = threading.Lock()

    def wants(self, snapshot: ServingSnapshot) -> list[Want]:
        """Return every model that a snapshot names; one that two endpoints share is named twice."""
        return [
            self._want(served, config, snapshot, part=part) for served, config, part in named_models(snapshot)
        ]

    def check_shadows(self, snapshot: ServingSnapshot, before: ServingSnapshot, stock: Stock) -> None:
        """Raise InvalidInput where a shadow that was not there before cannot be had: nobody waits for it yet.

        Later, as after a restart, it is told as not ready, and keeps no other from being served.
        """
        known = {one.shadow.model.release for one in before.endpoints if one.shadow is not None}
        for config in snapshot.endpoints:
            if config.shadow is None or config.shadow.model.release in known:
                continue
            resident = stock.models[model_key(config.shadow.model, config)]
            if resident.model is None:
                raise InvalidInput(
                    f"{resident.name} cannot lie ready beside the live version: {resident.fault}"
                )

    def let_go(self, held: list[Model]) -> None:
        """Free a model, whose only reference is in the list. Blocks."""
        if held and isinstance(held[0], WorkerModel | GraphModel):
            workers = [held[0]] if isinstance(held[0], WorkerModel) else held[0].workers
            for model in workers:
                assert self._fleet is not None, "workers are nobody's but the fleet's"
                self._fleet.let_go(model)
            if isinstance(held[0], WorkerModel):
                return
        with self._alone:  # what is freed beside a load would be taken off the size of the other
            held.clear()
            self._heap.give_back()

    def _want(
        self, served: ServedModel, config: EndpointConfig, snapshot: ServingSnapshot, *, part: Part
    ) -> Want:
        wish = wish_for(
            self._devices, config.placement, workers=config.workers * snapshot.gateways_at(self._machine), latency_s=config.latency_ms / 1e3,
            profile=config.profile,
        )  # fmt: skip
        return Want(
            key=model_key(served, config),
            name=served.version,
            live=part == "live",
            keep=None if part == "stand-in" else config.keep_loaded,
            load=lambda: self._load(served, config, snapshot.settings, wish),
            check=lambda: check_artifacts(served, self._home),
        )

    def _load(
        self, served: ServedModel, config: EndpointConfig, settings: GatewaySettings, wish: Wish
    ) -> tuple[Model, int]:
        measured = 0

        def here(data: bytes, signature: ModelSignature) -> LoadedModel:
            nonlocal measured
            with self._alone:
                before = self._heap.used_bytes()
                model = load(data, signature)
                measured += max(len(data), self._heap.used_bytes() - before)
            return model

        model = place(served, config, settings, home=self._home, fleet=self._fleet, here=here, wish=wish)
        if isinstance(model, WorkerModel):
            return model, model.bytes_of_all
        if isinstance(model, GraphModel):
            measured += sum(node.bytes_of_all for node in model.workers)
        return model, measured
