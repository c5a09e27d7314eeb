"""On which device a model comes to run: by what was measured, guarded by memory and by the CPU's answers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from taut.core.devices import Device, cpu, parse_devices
from taut.core.errors import Corrupt, InvalidInput
from taut.serving.errors import BadAnswer
from taut.serving.placement import (
    OrtHost,
    PlacedModel,
    Trial,
    Wish,
    choose,
    place,
    wish_for,
)
from taut.serving.placement.nvml import free_bytes
from taut.serving.runtime import Cost
from taut.testing.placement import SimulatedHost
from taut.testing.serving import columns_model, matrix_model, matrix_signature

WIDTH = 3
MODEL, SIGNATURE = matrix_model(WIDTH), matrix_signature(WIDTH)
MIB = 2**20
SLOW, MIDDLE, FAST = (
    Cost(base_us=1000, row_us=40_000),
    Cost(base_us=1000, row_us=22_000),
    Cost(base_us=900, row_us=10),
)
COSTS = {"cpu": SLOW, "cpu:2": MIDDLE, "cuda:0": FAST, "cuda:1": FAST}
DEVICES = parse_devices("cpu=0.05 cuda:0=2.5 cuda:1=2.0,1GiB", cores=2)


def wish(placement: str = "auto", *, latency_ms: float = 1000, workers: int = 1) -> Wish:
    return wish_for(DEVICES, placement, workers=workers, latency_s=latency_ms / 1e3, profile="latency")


# the choice


def test_the_cheapest_device_that_is_fast_enough_is_taken() -> None:
    host = SimulatedHost(COSTS)

    relaxed, hurried = (place(MODEL, SIGNATURE, wish(latency_ms=ms), host)[1] for ms in (1000, 100))

    # 40 ms a row are enough for a second; a million rows cost 0.58 dollars there, 0.01 on the accelerator
    assert [one.device for one in relaxed.trials] == ["cpu", "cuda:0", "cuda:1"]
    assert relaxed.device == "cuda:1"
    assert hurried.device == "cuda:1"  # and of two that are as fast, the one that costs less
    assert [one.device for one in hurried.trials] == ["cpu", "cpu:2", "cuda:0", "cuda:1"]


def test_an_accelerator_that_is_not_worth_its_price_is_left_alone() -> None:
    host = SimulatedHost(
        {**COSTS, "cpu": Cost(base_us=500, row_us=500), "cuda:0": Cost(base_us=300, row_us=90)}
    )

    model, placement = place(MODEL, SIGNATURE, wish("auto"), host)

    usd = {one.device: one.usd_per_million for one in placement.trials}
    assert usd["cpu"] == pytest.approx(0.05 / 3600 * (500 + 9 * 500) / 9)
    assert (placement.device, placement.lost) == ("cuda:1", "")
    dear = parse_devices("cpu=0.05 cuda:0=400 cuda:1=900", cores=2)
    wanted = wish_for(dear, "auto", workers=1, latency_s=1.0, profile="latency")
    model, placement = place(MODEL, SIGNATURE, wanted, host)
    assert (placement.device, placement.lost) == ("cpu", "")
    assert not isinstance(model, PlacedModel)


def test_more_threads_are_tried_only_where_fewer_are_too_slow() -> None:
    host = SimulatedHost(COSTS)

    enough, too_slow, hopeless = (
        place(MODEL, SIGNATURE, wish("cpu", latency_ms=ms), host)[1] for ms in (1000, 100, 10)
    )

    assert [one.device for one in enough.trials] == ["cpu"]
    assert (too_slow.device, [one.device for one in too_slow.trials]) == ("cpu:2", ["cpu", "cpu:2"])
    assert hopeless.device == "cpu:2"  # the fastest, where none is fast enough


def test_threads_are_shared_by_the_workers_of_a_machine() -> None:
    assert [one.name for one in wish("cpu", workers=1).devices] == ["cpu:2"]
    assert wish("cpu", workers=2).devices == ()


def test_a_named_accelerator_is_taken_whatever_it_costs_and_its_absence_is_said() -> None:
    host = SimulatedHost({**COSTS, "cpu": Cost(base_us=1, row_us=1)})

    assert place(MODEL, SIGNATURE, wish("cuda:0"), host)[1].device == "cuda:0"
    assert place(MODEL, SIGNATURE, wish("cuda"), host)[1].device == "cuda:1"
    _, elsewhere = place(MODEL, SIGNATURE, wish("cuda:7"), host)
    assert (elsewhere.device, elsewhere.lost[-24:]) == ("cpu", "not in TAUT_DEVICES here")


def test_a_cost_that_cannot_be_measured_leaves_one_thread_of_the_cpu() -> None:
    trials = [Trial(device="cpu"), Trial(device="cuda:0")]

    assert choose(trials, wish()).device == "cpu"
    assert choose(trials, wish("cuda:0")).device == "cuda:0"


def test_a_model_so_slow_that_somebody_waits_for_it_is_not_tried_everywhere() -> None:
    host = SimulatedHost({**COSTS, "cpu": Cost(base_us=0, row_us=6e6)})

    _, placement = place(MODEL, SIGNATURE, wish(latency_ms=100), host)

    assert placement.trials[0].cost == Cost(base_us=0, row_us=6e6)  # of three rows in all
    assert placement.trials[1].refused == "not tried: 15 s went by with the others"
    assert placement.device == "cpu"


# the guards


def test_an_accelerator_that_answers_otherwise_than_the_cpu_is_refused() -> None:
    host = SimulatedHost(COSTS, faults={"cuda:0": "wrong", "cuda:1": "wrong"})

    _, placement = place(MODEL, SIGNATURE, wish(), host)

    assert placement.device == "cpu"
    assert [one.refused for one in placement.trials[1:]] == [
        "it answers otherwise than the CPU, by 0.25 at most"
    ] * 2
    assert placement.lost == ""  # it would answer so again


def test_the_memory_of_an_accelerator_is_guarded_before_and_after() -> None:
    large, signature = matrix_model(WIDTH, ballast=1024), SIGNATURE  # 4 MiB
    host = SimulatedHost(COSTS, free={"cuda:0": 258 * MIB, "cuda:1": 600 * MIB}, faults={"cuda:1": "leak"})

    _, placement = place(large, signature, wish(), host)

    full, left = placement.trials[-2:]
    assert "are for it: 256 MiB are kept free" in full.refused
    assert left.refused == "it leaves 0 MiB of cuda:1, 256 MiB are kept free"
    assert (full.again, left.again, placement.device) == (True, True, "cpu")
    assert host.opened[-1] == (
        "cuda:1",
        344 * MIB,
    )  # the provider's own bound: what is free, without what is kept
    assert placement.lost.startswith("cuda:0: the model has 4.0 MiB")


def test_the_declared_limit_is_the_provider_s_own_where_more_is_free() -> None:
    host = SimulatedHost(COSTS, free={"cuda:1": 100 * 1024 * MIB})

    place(MODEL, SIGNATURE, wish("cuda:1"), host)

    assert host.opened == [("cpu", 0), ("cuda:1", 1024 * MIB)]


@pytest.mark.parametrize(("fault", "again"), [("absent", False), ("open", True), ("run", True)])
def test_a_device_that_fails_at_load_leaves_the_cpu(fault: str, again: bool) -> None:
    host = SimulatedHost(COSTS, faults={"cuda:0": fault})

    model, placement = place(MODEL, SIGNATURE, wish("cuda:0"), host)

    assert placement.device == "cpu"
    assert (placement.trials[-1].again, bool(placement.lost)) == (again, True)
    assert model.infer({"x0": [1.0], "x1": [2.0], "x2": [3.0]}).probabilities is not None


def test_a_model_that_nobody_can_load_is_corrupt_as_ever() -> None:
    with pytest.raises(Corrupt):
        place(b"no model", SIGNATURE, wish(), SimulatedHost(COSTS))


# while it serves


def test_a_device_that_fails_while_it_serves_is_left_for_the_cpu_and_no_answer_is_lost() -> None:
    host = SimulatedHost(COSTS)
    model, placement = place(MODEL, SIGNATURE, wish("cuda:0"), host)
    assert isinstance(model, PlacedModel)
    feed = model.neutral(5)
    before = model.raw(feed)
    assert (placement.device, model.moved()) == ("cuda:0", None)

    host.faults["cuda:0"] = "run"
    after = model.raw(feed)

    assert np.allclose(before, after)
    move = model.moved()
    assert move is not None
    assert (move.placement.device, model.moved()) == ("cpu", None)
    assert move.cost is not None
    assert move.cost.us(1) == pytest.approx(SLOW.us(1))
    assert move.placement.lost == "cuda:0 failed while it served: cuda:0 was lost"
    host.faults.clear()
    assert np.allclose(model.raw(feed), after)  # a lost device is not trusted again by the same process
    assert (model.placement.device, model.cost) == ("cpu", move.cost)


def test_a_value_on_which_the_cpu_fails_too_is_the_model_s_own_affair() -> None:
    host = SimulatedHost(COSTS)
    model, _ = place(MODEL, SIGNATURE, wish("cuda:0"), host)
    assert isinstance(model, PlacedModel)

    with pytest.raises(BadAnswer):
        model.raw({"input": np.zeros((1, WIDTH + 1), dtype=np.float32)})

    assert (model.placement.device, model.moved()) == ("cuda:0", None)


def test_models_of_columns_are_compared_by_rows_of_every_type() -> None:
    from taut.core.schema import Column, DType, ModelInput, ModelSignature

    columns = (Column("n", DType.FLOAT, True), Column("carrier", DType.STRING))
    signature = ModelSignature(
        request=columns,
        inputs=tuple(ModelInput(column=one) for one in columns),
        output="value",
        tensor="columns",
    )
    data = columns_model(["n"], "carrier")

    assert place(data, signature, wish("cuda:0"), SimulatedHost(COSTS))[1].device == "cuda:0"
    wrong = SimulatedHost(COSTS, faults={"cuda:0": "wrong"})
    assert place(data, signature, wish("cuda:0"), wrong)[1].device == "cpu"


# this machine


def test_two_threads_of_this_machine_are_measured_and_answer_alike() -> None:
    model, placement = place(
        matrix_model(WIDTH, ballast=512), SIGNATURE, wish("cpu", latency_ms=0.001), OrtHost()
    )

    costs = {one.device: one.cost for one in placement.trials}
    assert set(costs) == {"cpu", "cpu:2"}
    taken, other = costs[placement.device], costs["cpu" if placement.device == "cpu:2" else "cpu:2"]
    assert taken is not None
    assert other is not None
    assert taken.us(1) <= other.us(1)
    assert model.infer({"x0": [1.0], "x1": [0.0], "x2": [0.0]}).probabilities is not None


def test_a_provider_that_this_build_has_not_is_said_and_not_tried_again() -> None:
    _, placement = place(MODEL, SIGNATURE, wish("cuda"), OrtHost())

    assert "has no CUDAExecutionProvider" in placement.lost
    assert not any(one.again for one in placement.trials)


def test_a_second_provider_of_this_build_is_loaded_compared_and_served_through_the_same_door() -> None:
    """It is for calls to a cloud and computes none of these nodes itself; the way to a provider is the real one."""
    azure = Device(name="azure:0", provider="AzureExecutionProvider", usd_per_hour=1.0)

    model, placement = place(MODEL, SIGNATURE, Wish(devices=(azure,), named=True), OrtHost())

    assert (placement.device, placement.lost) == ("azure:0", "")
    assert isinstance(model, PlacedModel)
    assert len(model.infer({"x0": [1.0], "x1": [0.0], "x2": [0.0]}).labels) == 1


NVML = """
typedef struct { unsigned long long total, free, used; } memory;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int at, void **handle) { *handle = (void *)(long)(at + 1); return at > 1; }
int nvmlDeviceGetMemoryInfo(void *handle, memory *found) { found->free = (long)handle * 1000; return 0; }
"""


def test_free_memory_is_unknown_without_a_driver() -> None:
    assert free_bytes(0, library="libno-such-driver.so.1") is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="the stand-in for the driver is written in C")
def test_free_memory_is_what_the_driver_s_library_says(tmp_path: Path) -> None:
    source, library = tmp_path / "nvml.c", tmp_path / "libnvml.so"
    source.write_text(NVML)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)

    assert free_bytes(1, library=str(library)) == 2000
    assert free_bytes(2, library=str(library)) is None


# what is declared


def test_devices_are_read_with_their_prices_and_limits() -> None:
    found = parse_devices("cuda:1=2.5,20GiB cpu=0.05", cores=4)

    (device,) = found.accelerators
    assert (device.name, device.usd_per_hour, device.memory_bytes) == ("cuda:1", 2.5, 20 * 2**30)
    assert device.options["device_id"] == "1"
    assert "/dev/nvidia1" in device.paths
    assert (found.core_usd_per_hour, cpu(4, usd_per_hour=0.05).usd_per_hour) == (0.05, 0.2)
    assert parse_devices("", cores=4).accelerators == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cuda:0", "has no price"),
        ("cuda:0=free", "has no price"),
        ("cuda:0=-1", "has no price"),
        ("cuda=2", 'did you mean "cuda:0"'),
        ("cudda:0=2", 'did you mean "cuda:0"'),
        ("tpu:0=2", "accelerators are cuda"),
        ("cuda:0=2,much", "much"),
    ],
)
def test_what_is_no_device_is_refused_in_words(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_devices(text, cores=2)
