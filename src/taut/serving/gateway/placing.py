"""Where the models of a snapshot run, and how they are loaded: in this process, in workers, of a graph every node by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import TautError
from taut.core.schema import ModelSignature
from taut.serving.gateway.artifacts import read_artifact
from taut.serving.gateway.standins import unfit
from taut.serving.graphs import GraphModel, checked_plan
from taut.serving.memory import Model, Resident
from taut.serving.placement import Wish
from taut.serving.runtime import LoadedModel, load
from taut.serving.snapshot import (
    EndpointConfig,
    GatewaySettings,
    OtherModel,
    PreviousVersion,
    ServedModel,
    ServingSnapshot,
    StandIn,
)
from taut.serving.workers import Fleet, LaneSettings, Order, WorkerModel

LoadHere = Callable[[bytes, ModelSignature], LoadedModel]
Part = Literal["live", "beside", "stand-in"]
"""What a model is there for: to answer, to lie ready beside what answers, or to stand in for it."""
ONE_CORE: Final = Wish()
_OPEN_TIMEOUT_S: Final = 60.0


def named_models(snapshot: ServingSnapshot) -> Iterator[tuple[ServedModel, EndpointConfig, Part]]:
    """Yield every model that a snapshot names, by what it is placed, and what it is there for."""
    for config in snapshot.endpoints:
        # neither side of a switch that shall be instant may be evicted meanwhile
        sides = msgspec.structs.replace(config, keep_loaded=True) if config.beside else config
        yield config.live, sides, "live"
        for tried in config.as_tried():
            yield tried.live, tried, "live"
        for model in config.beside:
            yield model, sides, "beside"
        for one in config.fallbacks:
            if isinstance(one, PreviousVersion | OtherModel) and not unfit(one, config.live.signature):
                yield one.model, placing_of(config, one), "stand-in"


def load_all(
    snapshot: ServingSnapshot, *, home: Path, before: Mapping[str, Resident], fleet: Fleet | None
) -> dict[str, Resident]:
    models: dict[str, Resident] = {}
    for served, config, part in named_models(snapshot):
        key = model_key(served, config)
        if key in models and not (models[key].fault and part == "live"):
            continue
        kept = before.get(key)
        try:
            models[key] = (None if kept is None or kept.fault else kept) or Resident(
                key, served.version, model=place(served, config, snapshot.settings, home=home, fleet=fleet)
            )
        except TautError as error:
            if part == "live":
                raise  # where it only stands in or lies ready, its endpoint says that it cannot
            models[key] = Resident(key, served.version)
            models[key].fault = error.message
    return models


def placing_of(config: EndpointConfig, stand_in: StandIn) -> EndpointConfig:
    """Return by what a stand-in's model is placed: one of another model need not have workers because the live one has."""
    if isinstance(stand_in, OtherModel) and config.runtime == "worker":
        return msgspec.structs.replace(config, runtime="auto")
    return config


def model_key(served: ServedModel, config: EndpointConfig) -> str:
    """Return what tells loaded models apart: the artifact, what was promised of it, and where it is to run."""
    place = f"{config.runtime} {config.risk} {config.workers} {config.spares} {config.latency_ms} {config.profile} {config.placement}"
    return f"{served.artifact} {digest_bytes(msgspec.json.encode(served.signature))} {place}"


def place(
    served: ServedModel,
    config: EndpointConfig,
    settings: GatewaySettings,
    *,
    home: Path,
    fleet: Fleet | None,
    here: LoadHere = load,
    wish: Wish = ONE_CORE,
) -> Model:
    """Load a model in this process or in workers, as its endpoint says or as it was measured; of a graph, every node so.

    here: loads in this process. wish: on which devices workers may run it. Raises what `read_artifact` and loading do.
    """
    if served.nodes:
        return _place_graph(served, config, settings, home=home, fleet=fleet, here=here, wish=wish)
    return _place(served, config, settings, home=home, fleet=fleet, here=here, wish=wish, of="")


def _place_graph(
    served: ServedModel,
    config: EndpointConfig,
    settings: GatewaySettings,
    *,
    home: Path,
    fleet: Fleet | None,
    here: LoadHere,
    wish: Wish,
) -> GraphModel:
    plan = checked_plan(served, read_artifact(served, home))
    of = f"{model_key(served, config)} "  # its nodes come and go with it, whoever else serves the same versions
    nodes: dict[str, LoadedModel | WorkerModel] = {}
    try:
        for name, node in served.nodes.items():
            nodes[name] = _place(
                node, config, settings, home=home, fleet=fleet, here=here, wish=wish, of=f"{of}{name} "
            )
        return GraphModel(plan, nodes, inline_us=settings.inline_us)
    except BaseException:
        for model in nodes.values():
            if fleet is not None and isinstance(model, WorkerModel):
                fleet.let_go(model)
        raise


def _place(
    served: ServedModel,
    config: EndpointConfig,
    settings: GatewaySettings,
    *,
    home: Path,
    fleet: Fleet | None,
    here: LoadHere,
    wish: Wish,
    of: str,
) -> LoadedModel | WorkerModel:
    data = read_artifact(served, home)
    code = served.signature.form == "code"  # never here, whatever the endpoint says: `load` refuses it
    if fleet is None or (config.runtime == "inline" and not code):
        return here(data, served.signature)
    if config.runtime == "auto" and config.risk != "high" and not code and not wish.named:
        model = here(data, served.signature)
        if model.cost is None or model.cost.us(1) <= settings.worker_us:
            return model
    order = Order(
        signature=served.signature, memory_bytes=settings.worker_memory_bytes, wish=wish, artifact=served.artifact
    )  # fmt: skip
    asked = LaneSettings(
        workers=config.workers, spares=config.spares, latency_s=config.latency_ms / 1e3, profile=config.profile,
        hang_s=settings.worker_hang_s, memory_bytes=settings.worker_memory_bytes, cpus=settings.worker_cpus,
        device_pause_s=settings.device_pause_s, risk=config.risk,
    )  # fmt: skip
    return fleet.open(
        of + model_key(served, config), served.version, data, order, asked, timeout_s=_OPEN_TIMEOUT_S
    )
