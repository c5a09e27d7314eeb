"""Workers on accelerators that fail and come back, in real processes; the accelerators are simulated, nothing else is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from taut.core.devices import parse_devices
from taut.serving.placement import wish_for
from taut.serving.runtime import Cost, load
from taut.serving.workers import Fleet, LaneSettings, Order, WorkerModel
from taut.testing.accelerated import accelerated_zygote
from taut.testing.serving import (
    DataPlane,
    GatewayProcess,
    matrix_model,
    matrix_signature,
    slow_model,
    with_fields,
)

pytestmark = pytest.mark.xdist_group("placed-workers")

MODEL, SIGNATURE = matrix_model(3), matrix_signature(3)
COSTS = {"cpu": Cost(base_us=500, row_us=500), "cuda:0": Cost(base_us=200, row_us=1)}
WISH = wish_for(parse_devices("cuda:0=2.5", cores=1), "auto", workers=1, latency_s=1.0, profile="throughput")
ORDER = Order(signature=SIGNATURE, memory_bytes=2**31, wish=WISH)


class Bench:
    """A fleet whose workers have one accelerator, with faults that are switched on and off."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "faults.json"
        self.told: list[str] = []
        self.fleet = Fleet(
            accelerated_zygote(COSTS, self.file), tell=lambda what, _why: self.told.append(what)
        )

    def fault(self, kind: str = "") -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"cuda:0": kind}))
        fresh.replace(self.file)  # workers read it at any time

    async def open(self, *, pause_s: float = 0.2, **settings: Any) -> WorkerModel:
        made = LaneSettings(latency_s=1.0, profile="throughput", device_pause_s=pause_s, **settings)
        loop = asyncio.get_running_loop()
        open_ = self.fleet.open
        return await loop.run_in_executor(None, lambda: open_("m", "m@1", MODEL, ORDER, made, timeout_s=30))


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    made = Bench(folder)
    try:
        yield made
    finally:
        await made.fleet.close()


async def ask(model: WorkerModel, rows: int = 1) -> bool:
    """Return whether the answer is the one that the CPU of this process gives."""
    feed = {"input": np.arange(3 * rows, dtype=np.float32).reshape(rows, 3) / 10}
    found = await model.lane.run(feed, rows, within_s=90, priority=5, caller="a")
    return bool(np.allclose(found, load(MODEL, SIGNATURE).raw(feed), atol=1e-6))


async def until(holds: Callable[[], bool], model: WorkerModel) -> None:
    """Ask until something holds; every answer must be right."""
    async with asyncio.timeout(90):
        while not holds():
            assert await ask(model)
            await asyncio.sleep(0.02)


def devices(model: WorkerModel) -> dict[str, int]:
    return model.lane.rota.reading().workers


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_a_lost_accelerator_costs_no_answer_and_is_used_again_once_it_is_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            model = await made.open(workers=2)
            await until(lambda: devices(model) == {"cuda:0": 2}, model)
            assert model.lane.rota.lost == ""
            made.fault("run")
            answers = await asyncio.gather(*(ask(model, rows) for rows in range(1, 30)))
            assert all(answers)
            await until(lambda: devices(model) == {"cpu": 2}, model)
            assert model.lane.rota.lost == "cuda:0 failed while it served: cuda:0 was lost"
            made.fault()
            await until(lambda: devices(model) == {"cuda:0": 2}, model)
            assert (model.lane.rota.lost, model.lane.alive) == ("", 2)
            assert "m@1: model runs on its accelerator again" in made.told

    run(story())


@pytest.mark.parametrize(
    ("kind", "load_s", "why"),
    [("crash", 30.0, "ended before"), ("hang", 0.5, "did not load the model within 0.5 s before")],
)
def test_a_driver_that_takes_its_process_along_or_hangs_leaves_the_model_on_the_cpu(
    kind: str, load_s: float, why: str, tmp_path: Path
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            made.fault(kind)
            model = await made.open(pause_s=60.0, device_load_s=load_s)
            assert await ask(model)
            assert devices(model) == {"cpu": 1}
            reading = model.lane.rota.reading()
            assert reading.failures == 1
            assert f"a worker {why}" in reading.lost

    run(story())


def test_an_accelerator_without_room_is_tried_again_later(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            made.fault("open")
            model = await made.open()
            assert model.lane.rota.reading().trials[-1].refused == "cuda:0 is out of memory"
            await until(lambda: model.lane.rota.failures >= 2, model)  # and is not in the way of anybody
            made.fault()
            await until(lambda: devices(model) == {"cuda:0": 1}, model)
            assert [one.device for one in model.lane.rota.reading().trials] == ["cpu", "cuda:0"]

    run(story())


def test_an_accelerator_that_answers_otherwise_is_never_served_from(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as made:
            made.fault("wrong")
            model = await made.open()
            assert await ask(model)
            assert devices(model) == {"cpu": 1}
            assert (model.lane.rota.wanted, model.lane.rota.lost) == (False, "")

    run(story())


def test_a_real_gateway_says_where_its_workers_run_and_what_is_missing(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real onnxruntime of this machine, in a confined worker: two threads, and no CUDA."""
    monkeypatch.setenv("TAUT_DEVICES", "cpu=0.05 cuda:0=2.5,8GiB")
    served = plane.served(slow_model(3, layers=4), SIGNATURE)
    config = plane.endpoint(runtime="worker", placement="cuda:0", latency_ms=0.1)
    plane.issue(with_fields(config, live=served))
    with GatewayProcess(plane.home) as gateway:
        gateway.start()
        with httpx.Client(
            base_url=f"http://127.0.0.1:{gateway.port}",
            headers={"authorization": f"Bearer {plane.token()}"},
            timeout=60.0,
        ) as client:
            body = {"instances": [{"x0": 0.5, "x1": 0.25, "x2": -0.25}]}
            assert client.post("/v1/predict/delay", json=body).status_code == 200
            degraded = client.get("/v2/models/delay/ready").json()["degraded"]

    assert len(degraded) == 1
    assert "has no CUDAExecutionProvider" in degraded[0]
