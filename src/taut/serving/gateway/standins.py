"""The ways in which an endpoint can answer, laid out when its snapshot is compiled: cache, live version, stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from taut.core.errors import TautError
from taut.core.schema import Column, ModelSignature
from taut.serving.gateway.breakers import Breaker
from taut.serving.gateway.cache import ResultCache
from taut.serving.gateway.hedging import HedgeBudget
from taut.serving.gateway.scorer import Scorer
from taut.serving.gateway.tensors import label_datatype
from taut.serving.predictions import CACHED, DEFAULT
from taut.serving.runtime import Outputs
from taut.serving.snapshot import (
    DefaultAnswer,
    EndpointConfig,
    OtherModel,
    PreviousVersion,
    ServedModel,
    StaleAnswer,
    StandIn,
)

MakeScorer = Callable[[StandIn, ServedModel], Scorer]
"""Makes the scorer of a stand-in's version, which reads requests by the live version's face; raises what keeps it out."""


class VersionStep:
    """A version that stands in. breaker: set by the gateway when it begins to serve this."""

    def __init__(self, scorer: Scorer, head: bytes) -> None:
        self.scorer: Final = scorer
        self.head: Final = head
        self.name: Final = scorer.served.version
        self.breaker: Breaker | None = None


class StaleStep:
    """The last answer to the same request, not older than max_ns."""

    name: Final = CACHED

    def __init__(self, max_ns: int, head: bytes) -> None:
        self.max_ns: Final = max_ns
        self.head: Final = head


class DefaultStep:
    """One answer for every row. served: what it is shown as; no version made it."""

    name: Final = DEFAULT

    def __init__(self, served: ServedModel, row: Outputs, head: bytes) -> None:
        self.served: Final = served
        self.head: Final = head
        self._row: Final = row

    def outputs(self, count: int) -> Outputs:
        row = self._row
        return Outputs(
            labels=[*row.labels] * count,
            probabilities=[*row.probabilities] * count,
            values=[*row.values] * count,
        )


Step = VersionStep | StaleStep | DefaultStep


class Way:
    """How an endpoint answers that has more than its live version.

    steps: what stands in, in the order in which it is tried. when: on what occasions. unfit: what was declared and cannot
    stand in, and why. personal: whether cached answers are for the same principal only. hits, misses: heads of the live
    version's answers. ttl_ns: 0 where fresh answers are not cached. breaker, cache: set by the gateway when it begins to
    serve this, kept from the epoch before where they still hold.
    """

    def __init__(
        self, config: EndpointConfig, live: Scorer, *, epoch: int, personal: bool, make: MakeScorer
    ) -> None:
        cache = config.cache
        ages = [lookup.max_age_s for lookup in live.served.signature.lookups if lookup.max_age_s is not None]
        self.when: Final = frozenset(config.fallback_when)
        self.ttl_ns: Final = 0 if cache is None else int(min([cache.ttl_s, *ages]) * 1e9)
        self.stale_ns: Final = int(
            max((one.max_stale_s for one in config.fallbacks if isinstance(one, StaleAnswer)), default=0.0)
            * 1e9
        )
        self.max_bytes: Final = DEFAULT_CACHE_BYTES if cache is None else cache.max_bytes
        self.personal: Final = personal or (cache is not None and not cache.shared)
        self.hedge_s: Final = None if config.hedge_after_ms is None else config.hedge_after_ms / 1e3
        self.hedges: Final = HedgeBudget()
        self.miss: Final = head_lines(live.served, epoch, cache="off" if cache is None else "miss")
        self.off: Final = head_lines(live.served, epoch)
        self.hit: Final = head_lines(live.served, epoch, cache="hit")
        self.unfit: tuple[str, ...] = ()
        self.steps: Final = tuple(self._steps(config, live, epoch=epoch, make=make))
        self.breaker: Breaker | None = None
        self.cache: ResultCache | None = None

    @property
    def keeps(self) -> bool:
        """Whether answers are kept at all."""
        return bool(self.ttl_ns or self.stale_ns)

    @property
    def scorers(self) -> list[Scorer]:
        """Return the stand-ins that are models."""
        return [step.scorer for step in self.steps if isinstance(step, VersionStep)]

    def _steps(self, config: EndpointConfig, live: Scorer, *, epoch: int, make: MakeScorer) -> list[Step]:
        found: list[Step] = []
        face = live.served.signature
        cache = "off" if config.cache is None else "miss"
        for one in config.fallbacks:
            fault = unfit(one, face)
            if fault:
                self.unfit += (f"endpoint {config.name!r}: {fault}",)
                continue
            match one:
                case PreviousVersion(model=served) | OtherModel(model=served):
                    try:
                        scorer = make(one, served)
                    except TautError as error:  # a stand-in must not keep what is live from being served
                        self.unfit += (f"endpoint {config.name!r}: {error.message}",)
                        continue
                    head = head_lines(served, epoch, cache=cache, fallback=served.version)
                    found.append(VersionStep(scorer, head))
                case StaleAnswer(max_stale_s=max_stale_s):
                    head = head_lines(live.served, epoch, cache="hit", fallback=CACHED)
                    found.append(StaleStep(int(max_stale_s * 1e9), head))
                case DefaultAnswer():
                    served = msgspec.structs.replace(live.served, version=DEFAULT)
                    head = head_lines(served, epoch, cache=cache, fallback=DEFAULT)
                    found.append(DefaultStep(served, _row(one, face), head))
        return found


DEFAULT_CACHE_BYTES: Final = 32 * 2**20


def needs_way(config: EndpointConfig) -> bool:
    """Whether anything but the live version may answer, or anything may watch it, as workers are watched."""
    apart = config.runtime != "inline" or config.live.signature.form != "onnx"
    return bool(config.cache or config.fallbacks) or apart


def head_lines(served: ServedModel, epoch: int, *, cache: str = "off", fallback: str = "") -> bytes:
    """Return the header lines that all answers of a version share at one epoch."""
    head = (
        f"content-type: application/json\r\ntaut-model-version: {served.version}\r\ntaut-release: {served.release}\r\n"
        f"taut-policy-epoch: {epoch}\r\ntaut-cache: {cache}\r\n"
    )
    if fallback:
        head += f"taut-fallback: {fallback}\r\n"
    return head.encode("ascii")


def unfit(stand_in: StandIn, face: ModelSignature) -> str:
    """Return why something cannot stand in for a version of this signature; an empty text where it can."""
    match stand_in:
        case StaleAnswer():
            return ""
        case DefaultAnswer():
            return _default_fault(stand_in, face)
        case PreviousVersion(model=served) | OtherModel(model=served):
            fault = _face_fault(served.signature, face)
            return f"{served.version} cannot stand in: {fault}" if fault else ""


def _face_fault(own: ModelSignature, face: ModelSignature) -> str:
    """Say why a request that was read for one model cannot be scored by another, or its answer read as the one's."""
    known = {column.name: column for column in face.request}
    for column in own.request:
        if column.name not in known:
            return f"it needs {column.name!r}, which requests do not carry"
        if not _takes(column, known[column.name]):
            return f"it takes {column.name!r} in another form"
    if own.event_time is not None and own.event_time != face.event_time:
        return "its requests have another event time"
    odd = [lookup.feature_set for lookup in own.lookups if lookup not in face.lookups]
    if odd:
        return f"it looks {odd[0]!r} up in another way, or alone"
    if (own.output, own.classes) != (face.output, face.classes) or label_datatype(own) != label_datatype(
        face
    ):
        return "it gives other classes or values"  # (0, 1) equals (False, True), their data types differ
    return ""


def _takes(own: Column, given: Column) -> bool:
    return own.dtype is given.dtype and (own.nullable or not given.nullable)


def _default_fault(answer: DefaultAnswer, face: ModelSignature) -> str:
    if face.output == "value":
        return "" if answer.value is not None else "the default answer has no value, and the model gives one"
    named = [(type(label), label) for label, _ in answer.probabilities]
    if sorted(map(repr, named)) != sorted(repr((type(label), label)) for label in face.classes):
        wanted = ", ".join(repr(label) for label in face.classes)
        return f"the default answer must give each of {wanted} a probability"
    return ""


def _row(answer: DefaultAnswer, face: ModelSignature) -> Outputs:
    if answer.value is not None and face.output == "value":
        return Outputs(values=[answer.value])
    shares = dict(answer.probabilities)
    row: Sequence[float] = [shares[label] for label in face.classes]
    return Outputs(labels=[face.classes[row.index(max(row))]], probabilities=[row])
