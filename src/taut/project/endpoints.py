"""Declaring what is served, and the project itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from taut.core.devices import check_placement
from taut.core.errors import InvalidInput
from taut.project import words
from taut.project.comparing import ExperimentSpec
from taut.project.declare import declare
from taut.project.graphs import Graph
from taut.project.guarding import unmeasured
from taut.project.manifest import (
    CacheSpec,
    EndpointSpec,
    FallbackSpec,
    MonitorSpec,
    PriceSpec,
    SLOSpec,
    StrategySpec,
)
from taut.project.pipelines import Model, declaration_of
from taut.project.rules import SloFile
from taut.project.words import worded


class Endpoint:
    """A name under which a model answers."""

    @worded("Endpoint")
    def __init__(
        self,
        name: str,
        *,
        model: Any,
        release: StrategySpec | None = None,
        slo: SLOSpec | SloFile | None = None,
        fallback: FallbackSpec | Sequence[FallbackSpec] = (),
        fallback_when: Sequence[str] = ("failed", "late"),
        cache: CacheSpec | None = None,
        hedge_after: str | None = None,
        audit: str = "crash-safe",
        runtime: str = "auto",
        profile: str = "latency",
        placement: str = "auto",
        workers: int = 1,
        spares: int = 0,
        keep_loaded: bool | None = None,
        quota_per_s: float | None = None,
        model_time_per_s: float | None = None,
        price: PriceSpec | None = None,
        round_scores: int | None = None,
        round_suspects: int | None = None,
        monitor: MonitorSpec | None = None,
        experiment: ExperimentSpec | None = None,
        description: str = "",
    ) -> None:
        """model: the function that `@taut.model` decorates, or a `taut.Graph`. release: `taut.Direct()`, `taut.Canary(...)`, `taut.BlueGreen(...)` or `taut.Shadow(...)`.

        fallback: what answers when the model cannot, in the order in which they are tried; fallback_when: on what
        occasions: the model or its worker `failed`, it would be too `late`, there was so much to do that the request was
        `shed`, or `features` that it needs could not be had. cache: keeps answers. hedge_after: when a second worker is
        asked beside a slow one, within a twentieth of the requests.
        audit: what a prediction's record survives before the answer leaves: `crash-safe` the death of any process,
        `power-safe` the loss of power, `off` nothing (low risk only). runtime: where the model runs: `inline` in the
        gateway, `worker` in processes of its own, `auto` by its measured cost and its risk. profile: of a model in workers, `latency`
        keeps batches so small that an answer is well within its SLO, `throughput` makes them as large as the SLO allows. placement: where workers run it: `auto` on the
        cheapest device that is fast enough for the SLO, by what was measured when it was loaded, `cpu`, or an accelerator such
        as `cuda:0`, with the CPU in its place while it fails. workers: how many such processes each gateway keeps. spares: how many more wait, loaded, to take the place of one that ends. keep_loaded: the model is loaded ahead as long as the memory for models lasts, and
        evicted when others need the room more; True keeps it in memory, False loads it with the first request only.
        quota_per_s, model_time_per_s: requests, and seconds that models take, a second for a principal. price: of an answer, by which
        budgets in dollars are counted. round_scores: digits to which scores leave rounded; the log keeps them whole. round_suspects: the same where abuse of this endpoint is held against him. monitor: what is put up with of drift,
        faults and wrong answers before somebody is told. experiment: `taut.AB(...)` or `taut.Bandit(...)`, of several versions.
        """
        self.name = words.name(name, "endpoint")
        what = f"Endpoint {name!r}"
        found = _answering(model, what)
        _check_kinds(
            what, release=release, slo=slo, cache=cache, monitor=monitor, price=price, experiment=experiment
        )
        self.model = found
        self.spec = EndpointSpec(
            name=self.name,
            model=found.name,
            release=release or StrategySpec(),
            slo=None if isinstance(slo, SloFile) else slo,
            fallback=_fallbacks(fallback, what),
            fallback_when=_occasions(fallback_when, what),
            cache=cache,
            hedge_after=words.optional_duration(hedge_after, f"{what}: hedge_after"),
            runtime=words.one_of(runtime, ("auto", "inline", "worker"), f"{what}: runtime"),  # type: ignore[arg-type]  # as for audit
            profile=words.one_of(profile, ("latency", "throughput"), f"{what}: profile"),  # type: ignore[arg-type]  # as for audit
            placement=_placement(placement, what),
            workers=words.whole(workers, f"{what}: workers", low=1, high=64),
            spares=words.whole(spares, f"{what}: spares", low=0, high=8),
            keep_loaded=words.optional_flag(keep_loaded, f"{what}: keep_loaded"),
            audit=words.one_of(audit, ("crash-safe", "power-safe", "off"), f"{what}: audit"),  # type: ignore[arg-type]  # one_of checked it against the same words
            quota_per_s=words.optional_number(quota_per_s, f"{what}: quota_per_s", low=0.001, high=1e9),
            model_time_per_s=_model_time(model_time_per_s, what),
            price=price,
            round_scores=_digits(round_scores, f"{what}: round_scores"),
            round_suspects=_digits(round_suspects, f"{what}: round_suspects"),
            monitor=monitor,
            experiment=experiment,
            description=description,
        )
        if why := unmeasured(self.spec):
            raise InvalidInput(f"{what}: {why}")
        self.slo_file: str | None = slo.path if isinstance(slo, SloFile) else None
        self.place = declare("endpoint", self.name, self)

    def frozen(self, folder: Path) -> EndpointSpec:
        """Return the endpoint as data, with its service levels read; `folder` is where a relative path starts."""
        if self.slo_file is None:
            return self.spec
        from taut.project.openslo import read_openslo  # reads YAML, which declarations must not cost

        return msgspec.structs.replace(self.spec, slo=read_openslo(folder / self.slo_file, self.name))

    def __repr__(self) -> str:
        return f"taut.Endpoint({self.name!r})"


def _check_kinds(what: str, **values: object) -> None:
    for word, value in values.items():
        if value is not None and not isinstance(value, _KINDS[word]):
            raise InvalidInput(f"{what}: {word} is {value!r}: write {_EXAMPLES[word]}")


def _fallbacks(value: object, what: str) -> tuple[FallbackSpec, ...]:
    return words.instances(value, FallbackSpec, f"{what}: fallback", f"write {_EXAMPLES['fallback']}")


def _model_time(value: object, what: str) -> float | None:
    return words.optional_number(value, f"{what}: model_time_per_s", low=1e-6, high=1e6)


def _digits(value: int | None, what: str) -> int | None:
    return None if value is None else words.whole(value, what, low=0, high=9)


def _answering(model: Any, what: str) -> Model | Graph:
    found = model if isinstance(model, Graph) else declaration_of(model)
    if not isinstance(found, Model | Graph):
        shown = getattr(model, "__name__", repr(model))
        raise InvalidInput(
            f"{what}: model is {shown}: name the function that @taut.model decorates, or a taut.Graph, as an object"
        )
    return found


def _placement(value: str, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(
            f'{what}: placement is {value!r}: write "auto", "cpu" or the name of an accelerator'
        )
    try:
        return check_placement(value)
    except InvalidInput as error:
        raise InvalidInput(f"{what}: {error.message}") from None


def _occasions(value: Sequence[str], what: str) -> tuple[Any, ...]:
    named = words.texts(value, f"{what}: fallback_when")
    return tuple(words.one_of(one, OCCASIONS, f"{what}: fallback_when") for one in named)


@worded("simpler_model")
def simpler_model(endpoint: Endpoint) -> FallbackSpec:
    """The version that is live on another endpoint answers: released there, under the rules of its own model."""
    if not isinstance(endpoint, Endpoint):
        raise InvalidInput(
            f"simpler_model: {endpoint!r} is no endpoint: name the taut.Endpoint on which the simpler model is released"
        )
    return FallbackSpec(kind="simpler_model", endpoint=endpoint.name)


class Project:
    """The project's own name and environment; optional, at most one."""

    @worded("Project")
    def __init__(self, name: str = "default", *, environment: str = "development") -> None:
        self.name = words.name(name, "project")
        stages = ("development", "staging", "production")
        self.environment = words.one_of(environment, stages, f"Project {name!r}: environment")
        self.place = declare("project", "", self)


_KINDS: dict[str, Any] = {
    "release": StrategySpec, "slo": SLOSpec | SloFile, "cache": CacheSpec, "monitor": MonitorSpec, "price": PriceSpec,
    "experiment": ExperimentSpec,
}  # fmt: skip
_EXAMPLES = {
    "price": "taut.Price(per_model_second=0.002)",
    "cache": 'taut.Cache(ttl="60s")',
    "release": "taut.Direct(), taut.Canary(...), taut.BlueGreen(...) or taut.Shadow(...)",
    "slo": 'taut.SLO(availability=0.999) or taut.openslo("slos.yaml")',
    "fallback": "taut.previous_version(), taut.simpler_model(...), taut.cached_answer(...) or taut.default_answer(...)",
    "monitor": "taut.Monitor(shift=0.1)",
    "experiment": 'taut.AB(metric="right") or taut.Bandit(metric="reward")',
}
OCCASIONS = ("failed", "late", "shed", "features")
