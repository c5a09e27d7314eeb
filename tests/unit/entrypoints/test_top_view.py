"""What `taut top` says of models in memory and of their devices."""

from __future__ import annotations

import pytest

from taut.entrypoints.top_view import once
from taut.entrypoints.traffic import Sample, Traffic
from taut.serving.meters import (
    BATCH_ROWS,
    LAYOUT,
    TIME_NS,
    DevicesReading,
    Histogram,
    LaneReading,
    MeterReading,
    ModelsReading,
)


def sample(gateway: str, *, loaded: int, known: int, evictions: int = 0) -> Sample:
    load = Histogram(TIME_NS)
    for _ in range(loaded + evictions):
        load.observe(8_000_000)
    models = ModelsReading(
        budget_bytes=100 * 2**20, used_bytes=90 * 2**20, known=known, loaded=loaded, evictions=evictions,
        failures=0, load=load.reading(),
    )  # fmt: skip
    meters = MeterReading(layout=LAYOUT, started_us=1, up_us=1, in_flight=0, slots=1, models=models)
    return Sample(gateway=gateway, pid=1, ready=True, silent_s=0.1, epoch=1, meters=meters)


def test_models_on_demand_are_one_line_over_all_gateways(capsys: pytest.CaptureFixture[str]) -> None:
    samples = (sample("a", loaded=40, known=500, evictions=7), sample("b", loaded=50, known=500))

    once(Traffic(gateways=samples, rows=(), whole=True))

    said = capsys.readouterr().out
    assert "90 of 1000 models in memory, 180 of 200 MiB; 97 loads of 8 ms, 7 evictions, 0 failed" in said


def test_where_all_models_are_in_memory_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    once(Traffic(gateways=(sample("a", loaded=3, known=3),), rows=(), whole=True))

    assert "in memory" not in capsys.readouterr().out


def test_a_model_that_had_to_leave_its_accelerator_is_named_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def at(lost: str) -> Sample:
        lane = LaneReading(
            endpoints="late", version="late@1", workers=1, wanted=1, waiting_rows=0, shed=0, lost=0,
            batch_rows=Histogram(BATCH_ROWS).reading(), devices=DevicesReading(workers={"cpu": 1}, lost=lost),
        )  # fmt: skip
        meters = MeterReading(layout=LAYOUT, started_us=1, up_us=1, in_flight=0, slots=1, lanes=(lane,))
        return Sample(gateway="a", pid=1, ready=True, silent_s=0.1, epoch=1, meters=meters)

    once(Traffic(gateways=(at("cuda:0: out of memory"),), rows=(), whole=True))
    displaced = capsys.readouterr().out
    once(Traffic(gateways=(at(""),), rows=(), whole=True))

    assert "late on a runs on the CPU in its accelerator's place: cuda:0: out of memory" in displaced
    assert "accelerator" not in capsys.readouterr().out
