"""Declaring by what a release is judged beside errors and latency: what became true of answers, their cost, limits of their own."""

from __future__ import annotations

from typing import Final

from taut.core.errors import InvalidInput
from taut.project import words
from taut.project.manifest import EndpointSpec, LimitSpec
from taut.project.rules import Guardrail
from taut.project.words import worded

_HUGE: Final = 1e12


@worded("quality")
def quality() -> Guardrail:
    """How often answers are wrong beside the live version's, by the outcomes that people tell of."""
    return Guardrail(name="quality")


@worded("outcome")
def outcome(*, most: float = 1.0) -> Guardrail:
    """What answers bring beside the live version's, by the outcomes that people tell of: of a classifier with two classes how often the second
    one came true (a conversion), of a regressor the value itself (revenue). most: the largest amount that counts; a larger one counts as it.
    """
    bound = words.number(most, "outcome: most", low=1e-9, high=_HUGE)
    return Guardrail(name="outcome", payoff_most=float(bound))


@worded("cost")
def cost() -> Guardrail:
    """What an answer costs beside the live version's, by the endpoint's `price` and the time that models take."""
    return Guardrail(name="cost")


@worded("absolute")
def absolute(metric: str, *, most: float, over_ms: float | None = None, act: str = "page") -> Guardrail:
    """A limit whatever the live version does: at most a part `most` of the canary's answers fail (`errors`), or take longer than `over_ms` (`latency`).

    act: `page` tells people, `hold` lets it grow no further; `roll_back` ends it where it is also surely worse than the live
    version, and holds it else, since what both suffer is no reason to go back.
    """
    what = f"absolute({words.one_of(metric, ('errors', 'latency'), 'absolute: metric')!r})"
    if (over_ms is None) is (metric == "latency"):
        raise InvalidInput(
            f"{what}: over_ms says when an answer is slow: write it for latency, and for nothing else"
        )
    spec = LimitSpec(
        metric=metric,  # type: ignore[arg-type]  # one_of checked it against the same words
        most=float(words.number(most, f"{what}: most", low=1e-6, high=0.999)),
        over_ms=0.0
        if over_ms is None
        else float(words.number(over_ms, f"{what}: over_ms", low=0.001, high=70_000)),
        act=words.one_of(act, ("page", "hold", "roll_back"), f"{what}: act"),  # type: ignore[arg-type]  # as above
    )
    return Guardrail(name="absolute", limit=spec)


def unmeasured(endpoint: EndpointSpec) -> str:
    """Return why a guardrail of an endpoint's releases would watch what nobody measures; nothing where each can be."""
    rails = endpoint.release.guardrails
    by_outcomes = sorted({"quality", "outcome"} & set(rails))
    if by_outcomes and endpoint.audit == "off":
        return (
            f"guardrail {by_outcomes[0]} needs outcomes, which are joined with the prediction log, and endpoint {endpoint.name} keeps none: "
            'write audit="crash-safe"'
        )
    if "cost" in rails and endpoint.price is None:
        return f"guardrail cost needs a price, and endpoint {endpoint.name} has none: write price=taut.Price(per_model_second=…)"
    return ""
