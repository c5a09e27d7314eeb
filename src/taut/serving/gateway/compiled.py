"""A snapshot made ready to serve: models loaded, decoders built, routes laid out, records' heads encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from taut.core.errors import Corrupt, InvalidInput, TautError
from taut.core.schema import FeatureLookup, ModelSignature
from taut.serving.gateway.drilled import carry_over, scorer_of
from taut.serving.gateway.placing import load_all, model_key, placing_of
from taut.serving.gateway.restraints import Restraints
from taut.serving.gateway.rounding import rounding_of
from taut.serving.gateway.scorer import Scorer
from taut.serving.gateway.standins import MakeScorer, Way, head_lines, needs_way
from taut.serving.gateway.tensors import TensorDecoder, label_datatype, output_names
from taut.serving.gateway.turns import Turn, Turns
from taut.serving.memory import Resident, Residents
from taut.serving.meters import EndpointMeter
from taut.serving.predictions import Lookup, RecordHead, encode_head
from taut.serving.runtime import RowDecoder
from taut.serving.snapshot import (
    EndpointConfig,
    ServedModel,
    ServingSnapshot,
    StandIn,
)
from taut.serving.trials import Sampling, Side, Split, Trials
from taut.serving.workers import Fleet, Lane
from taut.trust.identity.principals import Principal
from taut.trust.identity.verifier import TokenVerifier
from taut.trust.policy import Policy
from taut.trust.quota import Account, Key


class Endpoint:
    """One endpoint, compiled.

    way: None where only the live version answers, in this process. plain: whether nobody else is asked now. short_rows: how
    many rows may be scored without waiting, -1 where the model is not in memory or in workers. prompt: whether nothing but
    the live version's workers is waited for. residents: who loads
    models; None where all are in memory. tried: the same endpoint as versions answer it that are tried beside the live one, and
    split: who is drawn to which, or which requests a shadow is asked too; sampling: that shadow.
    record_head: of records; undrawn_head: of those whose callers were drawn to no version, which prove nothing of a trial. called: under what the version is metered. meter, turn: replaced by the gateway's own when it begins to serve this.
    """

    def __init__(
        self,
        config: EndpointConfig,
        snapshot: ServingSnapshot,
        models: Mapping[str, Resident],
        residents: Residents | None = None,
        *,
        personal: bool = False,
    ) -> None:
        live = config.live
        signature = live.signature
        self.meter = EndpointMeter()
        self.turn = Turn(Turns())
        self.config: Final = config
        self.name: Final = config.name
        self.resource: Final = f"endpoint:{config.name}"
        self.signature: Final = signature
        key = model_key(live, config)
        self.split: Split | Sampling | None = None
        self.sampling: Sampling | None = None
        self.tried: tuple[Endpoint, ...] = ()
        self.called = live.version
        self.live: Final = scorer_of(live, models[key])
        self.resident: Final = self.live.resident
        self.residents: Final = residents
        self.way: Final = (
            Way(config, self.live, epoch=snapshot.epoch, personal=personal, make=self._maker(models))
            if needs_way(config)
            else None
        )
        self.scorers: Final = (self.live, *(() if self.way is None else self.way.scorers))
        self.lookups: Final = signature.lookups
        self.keys: Final = tuple(_key_positions(signature, lookup) for lookup in signature.lookups)
        settings = snapshot.settings
        self.rows: Final = RowDecoder(signature.request, max_rows=settings.max_rows)
        names = [column.name for column in signature.request]
        self.event_time: Final = None if signature.event_time is None else names.index(signature.event_time)
        if self.event_time is not None and self.event_time != len(names) - 1:
            raise InvalidInput(f"{live.version}: the event time must be the last column of a request")
        self.tensors: Final = TensorDecoder(
            signature.request if self.event_time is None else signature.request[:-1],
            optional=None if self.event_time is None else signature.request[-1],
            outputs=output_names(signature),
            max_rows=settings.max_rows,
            packed=all(scorer.direct for scorer in self.scorers),
        )
        self.inline_us: Final = settings.inline_us
        self.short_rows = -1
        self.plain = self.prompt = False
        self.settle()
        self.label_type: Final = label_datatype(signature)
        self.raw_heads: Final[dict[tuple[str, int, tuple[str, ...]], bytes]] = {}
        self.price: Final = config.price
        self.allowances: Final = snapshot.allowances
        self.rounding: Final = rounding_of(config)
        ages = [age for age in (snapshot.max_age_s, config.max_age_s) if age is not None]
        self.stale_us: Final = snapshot.issued_at_us + int(min(ages) * 1e6)
        head = RecordHead(
            endpoint=config.name,
            version=live.version,
            release=live.release,
            epoch=snapshot.epoch,
            share=config.share,
            trial=config.tried_in[0],
            stage=config.tried_in[1],
            columns=tuple(column.name for column in signature.request),
            lookups=tuple(
                Lookup(lookup.feature_set, _columns(live, lookup.feature_set)) for lookup in signature.lookups
            ),
        )
        self.record_head: Final = encode_head(head)
        self.undrawn_head: Final = encode_head(msgspec.structs.replace(head, share=0.0, trial="", stage=0))
        self.number: Final = live.version.rpartition("@")[2]
        self.head: Final = head_lines(live, snapshot.epoch)

    def account(self, principal: Principal, throttles: tuple[Key, ...] = ()) -> Account:
        """Return what a caller's requests here count against: throttles first, then what is his own, then what he shares."""
        config, takes, dues = self.config, list(throttles), []
        if config.quota is not None:
            takes.append((config.name, principal.id))
        if config.model_time is not None:
            dues.append((config.model_time.kind, (f"{config.name}:time", principal.id)))
        for allowance in self.allowances:
            if not allowance.covers(principal, config.name):
                continue
            for limit, key in allowance.keys(principal):
                if limit.kind == "requests":
                    takes.append(key)
                else:
                    dues.append((limit.kind, key))
        return Account(tuple(takes), tuple(dues))

    def divide(self, tried: Sequence[Endpoint]) -> None:
        """Let other versions answer a part of the callers each from now on."""
        told = self.config.trial
        assert told is not None
        self.tried = tuple(tried)
        for one in tried:
            if one.called == self.called:
                one.called += " (canary)"  # tried against itself
        places = [(0, told.left), *((arm.slot, arm.weight) for arm in told.arms)]
        sides = [
            Side(slot, weight, one, {kind: Route(one, kind) for kind in ("v1", "v2")})
            for (slot, weight), one in zip(places, self.versions, strict=True)
        ]
        self.split = Split(told.release, sides)

    def shadow(self, sampling: Sampling) -> None:
        """Let another version be asked too from now on; where its share is 0 it only lies ready, and no request is drawn."""
        self.sampling = sampling
        if sampling.share:
            self.split = sampling

    def begin_trial(self, trials: Trials) -> None:
        """Count what becomes of each version beside the live one, where several answer; after each has its meter."""
        told = self.config.trial
        if told is None or not isinstance(self.split, Split):
            return
        counted = []
        for one in self.tried:
            one.turn = self.turn
            trial = trials.of(told.release, told.stage, one.config.live.version)
            trial.count_by(one.meter, self.meter, by_model=self.config.cache is not None)
            counted.append(trial)
        self.split.count_in(counted)

    @property
    def versions(self) -> tuple[Endpoint, ...]:
        """Return the endpoint as each version answers it, the live one first."""
        return (self, *self.tried)

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """Return the workers of every version that may answer."""
        return tuple(dict.fromkeys(lane for one in self.scorers for lane in one.lanes))

    @property
    def displaced(self) -> list[str]:
        """Return which models run on the CPU in their accelerator's place, and why."""
        return [
            f"endpoint {self.name!r}: {lane.name} runs on the CPU in its accelerator's place: {lane.rota.lost}"
            for lane in self.lanes
            if lane.rota.lost
        ]

    def settle(self) -> None:
        """Lay out the short way anew, after a model came into memory or left it."""
        config, resident = self.config, self.resident
        self.plain = not (config.cache or config.fallbacks or config.live.nodes) and resident.lane is None
        here = resident.model is not None and not self.lanes
        self.short_rows = self.live.rows_within(self.inline_us) if here else -1
        waits = config.cache or config.fallbacks or config.hedge_after_ms or self.lookups
        self.prompt = resident.lane is not None and not waits

    def _maker(self, models: Mapping[str, Resident]) -> MakeScorer:
        """Return what makes a stand-in's scorer."""

        def make(stand_in: StandIn, served: ServedModel) -> Scorer:
            key = model_key(served, placing_of(self.config, stand_in))
            if key not in models or models[key].fault:
                raise Corrupt(f"{served.version} cannot stand in: its artifact cannot be loaded, restore it")
            return Scorer(served, models[key], face=self.signature)

        return make


def _columns(served: ServedModel, feature_set: str) -> tuple[str, ...]:
    """Return the columns of a set, none while they change: each row's materialisation says them then."""
    forms = set(served.feature_columns.get(feature_set, {}).values())
    return forms.pop() if len(forms) == 1 else ()


def _key_positions(signature: ModelSignature, lookup: FeatureLookup) -> tuple[int, ...]:
    names = [column.name for column in signature.request]
    return tuple(names.index(key) for key in lookup.keys)


class Stock(NamedTuple):
    """A snapshot's models by key, and who loads those that are not in memory."""

    models: Mapping[str, Resident]
    residents: Residents


class Route(msgspec.Struct, frozen=True):
    """Where an inference path leads. kind: `v1` for instances, `v2` for tensors. pinned: whether it names the version."""

    endpoint: Endpoint
    kind: str
    pinned: bool = False


class Active:
    """Everything that requests of one epoch work with. Never changed; replaced whole, and freed with its last request.

    answering: the endpoints, one several times where several versions answer. on_trial: releases under way.
    """

    def __init__(
        self,
        snapshot: ServingSnapshot,
        *,
        policy: Policy,
        models: Mapping[str, Resident],
        residents: Residents | None = None,
    ) -> None:
        self.snapshot: Final = snapshot
        self.epoch: Final = snapshot.epoch
        self.settings: Final = snapshot.settings
        self.verifier: Final = TokenVerifier(snapshot.identity)
        self.policy: Final = policy
        self.models: Final = models
        self.residents: Final = residents
        self.limits: Final = snapshot.limits
        self.restraints: Final = Restraints(snapshot.contained)
        personal = policy.looks_at_callers("predict")
        self.endpoints: Final = {
            config.name: Endpoint(config, snapshot, models, residents, personal=personal)
            for config in snapshot.endpoints
        }
        for config in snapshot.endpoints:
            tried = [
                Endpoint(one, snapshot, models, residents, personal=personal) for one in config.as_tried()
            ]
            if tried:
                self.endpoints[config.name].divide(tried)
            shadow = config.with_shadow_live()
            if shadow is not None:
                self.endpoints[config.name].shadow(self._sampling(shadow, models, residents))
        self.answering: Final = [one for endpoint in self.endpoints.values() for one in endpoint.versions]
        self.on_trial: Final = {one.trial.release for one in snapshot.endpoints if one.trial is not None}
        self.routes: Final = dict(_routes(self.endpoints))
        self.stale_us: Final = snapshot.issued_at_us + int(snapshot.max_age_s * 1e6)
        self._asking: Final[dict[str, list[Endpoint]]] = {}
        for endpoint in self.answering:
            for scorer in endpoint.scorers:
                self._asking.setdefault(scorer.key, []).append(endpoint)

    def _sampling(
        self, shadow: EndpointConfig, models: Mapping[str, Resident], residents: Residents | None
    ) -> Sampling:
        """Lay out a shadow, whose models never run on the event loop; one that cannot serve keeps nothing from being served."""
        live, release, share = self.endpoints[shadow.name].live, shadow.live.release, shadow.share
        settings = msgspec.structs.replace(self.settings, inline_us=0.0)
        beside = msgspec.structs.replace(self.snapshot, settings=settings)
        try:
            return Sampling(release, share, live=live, endpoint=Endpoint(shadow, beside, models, residents))
        except TautError as error:
            return Sampling(release, share, live=live, endpoint=None, fault=error.message)

    def asking(self, resident: Resident) -> list[Endpoint]:
        """Return the endpoints that a model may answer for."""
        return self._asking.get(resident.key, [])


def _routes(endpoints: Mapping[str, Endpoint]) -> list[tuple[str, Route]]:
    found = []
    for name, endpoint in endpoints.items():
        found += [
            (f"/v1/predict/{name}", Route(endpoint, "v1")),
            (f"/v2/models/{name}/infer", Route(endpoint, "v2")),
            (f"/v2/models/{name}/versions/{endpoint.number}/infer", Route(endpoint, "v2", pinned=True)),
        ]
    return found


def compile_snapshot(
    snapshot: ServingSnapshot,
    *,
    home: Path,
    before: Active | None,
    fleet: Fleet | None = None,
    stock: Stock | None = None,
) -> Active:
    """Load and check everything that a snapshot names. Slow: run it off the event loop.

    home: against which relative artifact paths are read. before: whose models and policy are kept where they
    are the same, so that a new epoch costs what changed. fleet: where models run that
    want worker processes; without one all run here. stock: its models, and who loads them; without it all are loaded now.
    Raises Corrupt when an artifact is not the one that was signed or the policy differs from its digest; InvalidInput
    when a model does not fit its signature.
    """
    if before is not None and _policies(before.snapshot) == _policies(snapshot):
        policy = before.policy
    else:
        policy = Policy(snapshot.policies, resources=snapshot.resources)
    if policy.digest != snapshot.policy_digest:
        raise Corrupt(
            f"the policy's digest is {policy.digest}, the snapshot says {snapshot.policy_digest}: upgrade the gateway "
            "and control to the same version"
        )
    models = (
        load_all(snapshot, home=home, before={} if before is None else before.models, fleet=fleet)
        if stock is None
        else stock.models
    )
    residents = None if stock is None else stock.residents
    active = Active(snapshot, policy=policy, models=models, residents=residents)
    if before is not None:
        carry_over((one.live for one in before.answering), (one.live for one in active.answering))
    return active


def _policies(snapshot: ServingSnapshot) -> tuple[object, ...]:
    return snapshot.policies, snapshot.resources
