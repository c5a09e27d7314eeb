"""What a decision costs beside a thousand policies of a project: remembered, evaluated, and the first of its slice."""

from __future__ import annotations

import statistics
import time
import timeit
from functools import partial
from typing import Final

from benchmarks.report import Report
from taut.trust.identity import Principal
from taut.trust.policy import Attributes, Facts, Policy, facts

POLICIES: Final = 1_000
ENDPOINTS: Final = 50
PEOPLE: Final = 200
ROUNDS: Final = 7
CONTEXT: Final = facts({"plane": "data", "risk": "medium", "hour": 9, "weekday": 2})


def run(report: Report) -> None:
    text, resources = _project()
    parsed = [
        timeit.timeit(partial(Policy, f"{text}// {at}\n", resources=resources), number=1) for at in range(3)
    ]  # each another text: what was read is remembered
    report.figure(
        f"{POLICIES:,} policies read, checked and indexed", [seconds * 1e3 for seconds in parsed], "ms",
        note="once for each plan; beside the requests, and mostly without the interpreter",
    )  # fmt: skip
    policy = Policy(text, resources=resources)
    people = [Principal(id=f"app-{n}", kind="service", roles=("predictor",)) for n in range(PEOPLE)]
    asks = [(who, f"endpoint:e{n % ENDPOINTS}") for n, who in enumerate(people)]
    first = [_us(policy, who, endpoint, CONTEXT) for who, endpoint in asks]
    report.figure("first decision of its slice", first, "µs", note="its policies are parsed on the way")
    bearing = policy._slices.of(asks[0][0], "predict", asks[0][1])
    report.figure("policies that a question sees", [float(len(bearing.statements))], "")
    report.figure("decided, not remembered", _cold(policy, asks), "µs", wanted="≤ 100")
    who, endpoint = asks[0]
    warm = timeit.repeat(
        lambda: policy.decide(who, "predict", endpoint, CONTEXT), number=100_000, repeat=ROUNDS
    )
    report.figure("decided, remembered", [seconds / 100_000 * 1e6 for seconds in warm], "µs", wanted="≤ 1")
    report.figure("decided, not remembered, without policies of a project", _cold(Policy(), asks), "µs")


def _cold(policy: Policy, asks: list[tuple[Principal, str]]) -> list[float]:
    """Return the median time of questions that were not asked before, for each of several hours."""
    hours = (
        facts({"plane": "data", "risk": "medium", "hour": hour, "weekday": 2})
        for hour in range(10, 10 + ROUNDS)
    )
    return [statistics.median(_us(policy, who, endpoint, hour) for who, endpoint in asks) for hour in hours]


def _us(policy: Policy, who: Principal, endpoint: str, context: Facts) -> float:
    start = time.perf_counter()
    decision = policy.decide(who, "predict", endpoint, context)
    took = time.perf_counter() - start
    if not decision.allow:
        raise AssertionError(f"{who.id} is denied {endpoint}: {decision.reasons}")
    return took * 1e6


def _project() -> tuple[str, dict[str, Attributes]]:
    """A project in which each of many programs may ask some endpoints, with a few rules for everybody."""
    each = (
        f'@id("app-{n}")\npermit(principal == Principal::"app-{n % 250}", action == Action::"predict", '
        f'resource == Resource::"endpoint:e{n % ENDPOINTS}")\nwhen {{ context has hour && context.hour >= {n % 5} }};\n'
        for n in range(POLICIES - 3)
    )
    common = (
        '@id("night")\nforbid(principal, action == Action::"predict", resource)\n'
        'when { context has hour && context.hour < 3 && resource has risk && resource.risk == "high" };\n'
        '@id("restricted")\nforbid(principal, action in [Action::"predict", Action::"data.read"], resource)\n'
        'when { resource has classification && resource.classification == "restricted" }\n'
        "unless { resource has owner && resource.owner == principal.id };\n"
        '@id("weekend")\nforbid(principal, action == Action::"release.start", resource)\n'
        "when { context has weekday && context.weekday > 5 };\n"
    )
    known = {
        f"endpoint:e{n}": Attributes(
            environment="staging", risk="medium", classification="internal", owner="ada"
        )
        for n in range(ENDPOINTS)
    }
    return "".join(each) + common, known
