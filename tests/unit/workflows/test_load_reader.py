"""What gateways count becomes load: exactly, of the interval, and of those that may serve."""

from __future__ import annotations

from typing import Any

import pytest

from taut.core.errors import InvalidInput
from taut.fleet.scaling import Load, Look, Rule
from taut.project.manifest import AutoscaleSpec
from taut.serving.meters import LAYOUT, EndpointMeter, MeterReading, encode_reading
from taut.serving.snapshot import Beat, GatewayState
from taut.workflows.scaling import LoadReader, rule_of

MS = 10**6


def meter(answers: int = 0, *, total_ns: int = 10 * MS, wait_ns: int = 0) -> EndpointMeter:
    made = EndpointMeter()
    for _ in range(answers):
        made.answered(9_000, 40_000, total_ns)
        if wait_ns:
            made.queue.observe(wait_ns)
    return made


def state(
    up_s: float, *meters: tuple[str, EndpointMeter], name: str = "gateway-0", cpu_s: float = 0.0, in_flight: int = 0,
    heard_s: float = 100.0, pid: int = 1,
) -> GatewayState:  # fmt: skip
    reading = MeterReading(
        layout=LAYOUT, started_us=pid, up_us=int(up_s * 1e6), in_flight=in_flight, slots=9, cpu_us=int(cpu_s * 1e6),
        endpoints=tuple(made.reading(endpoint, f"{endpoint}@1") for endpoint, made in meters),
    )  # fmt: skip
    beat = Beat(gateway=name, epoch=1, ready=True, answers=0, refusals=0, meters=encode_reading(reading))
    return GatewayState(gateway=name, pid=pid, serving=1, beat=beat, heard_s=heard_s)


def look(reader: LoadReader, *states: GatewayState, **words: Any) -> Look:
    known = {"serving": {"gateway-0", "gateway-1"}, "objectives_ms": {}, "now_s": 100.0, "wall_s": 1e9}
    return reader.look(states, **{**known, **words})


def test_the_first_reading_tells_nothing_and_the_next_what_happened_since() -> None:
    reader, life = LoadReader(), meter(500)
    assert look(reader, state(10, ("late", life), cpu_s=3.0)).loads == ()
    for _ in range(40):
        life.answered(9_000, 40_000, 10 * MS)

    assert look(reader, state(12, ("late", life), cpu_s=4.5)).loads == (Load(concurrency=0.2, cpu=0.75),)


def test_what_waits_now_counts_where_nothing_is_answered() -> None:
    reader = LoadReader()
    look(reader, state(10))

    assert look(reader, state(11, in_flight=7)).loads == (Load(concurrency=7.0, cpu=0.0),)


def test_a_reading_that_comes_twice_says_the_same_again() -> None:
    reader = LoadReader()
    look(reader, state(10, cpu_s=1.0))
    later = state(11, cpu_s=1.5)

    assert look(reader, later).loads == look(reader, later).loads == (Load(concurrency=0.0, cpu=0.5),)


def test_who_may_not_serve_or_says_nothing_any_more_tells_nothing() -> None:
    reader = LoadReader()
    states = [
        [
            state(up_s, cpu_s=up_s / 2),
            state(up_s, name="gateway-1", heard_s=94.0),
            state(up_s, name="gateway-2@far"),
        ]
        for up_s in (10, 11)
    ]
    look(reader, *states[0])
    found = look(reader, *states[1])

    assert (found.ready, found.loads) == (2, (Load(concurrency=0.0, cpu=0.5),))


def test_a_process_that_starts_anew_begins_at_nothing() -> None:
    reader = LoadReader()
    look(reader, state(100, cpu_s=50.0))

    assert look(reader, state(1, cpu_s=0.9, pid=2)).loads == ()
    assert look(reader, state(2, cpu_s=1.4, pid=2)).loads == (Load(concurrency=0.0, cpu=0.5),)


def test_latency_is_that_of_the_endpoint_that_is_worst_off_over_all_gateways() -> None:
    reader, late, price = LoadReader(), meter(), meter()
    look(reader, state(10, ("late", late), ("price", price)), state(10, ("late", late), name="gateway-1"))
    for _ in range(15):  # of one gateway alone, these would be too few
        late.answered(9_000, 40_000, 30 * MS)
    for _ in range(40):
        price.answered(9_000, 40_000, 2 * MS)
    states = [state(11, ("late", late), ("price", price)), state(11, ("late", late), name="gateway-1")]

    found = look(reader, *states, objectives_ms={"late": 20.0, "price": 20.0, "none": 1.0})
    assert found.latency == pytest.approx(1.5, abs=0.1)
    assert look(LoadReader(), *states, objectives_ms={"late": 20.0}).latency is None


def test_waits_are_those_of_all_endpoints() -> None:
    reader, late = LoadReader(), meter()
    look(reader, state(10, ("late", late)))

    found = look(reader, state(11, ("late", meter(30, wait_ns=20 * MS))))
    assert found.wait_ms == pytest.approx(20, abs=5)


def test_a_declaration_becomes_a_rule() -> None:
    spec = AutoscaleSpec(
        name="gateway",
        minimum=2,
        maximum=8,
        cpu=0.6,
        wait="5ms",
        window="30s",
        cooldown="2m",
        replica_hours=100.0,
    )

    assert rule_of(spec) == Rule(
        pool="gateway", minimum=2, maximum=8, cpu=0.6, wait_ms=5.0, stable_s=30.0, panic_s=3.0, cooldown_s=120.0,
        replica_hours=100.0,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="nothing is aimed at"):
        rule_of(AutoscaleSpec(name="gateway"))
