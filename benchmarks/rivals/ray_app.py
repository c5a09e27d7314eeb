"""The model under Ray Serve: one replica behind its proxy, bodies decoded and encoded by msgspec."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=1, max_ongoing_requests=200, ray_actor_options={"num_cpus": 0.5})
class Plain:
    def __init__(self) -> None:
        from shared_model import open_model

        self.score = open_model()
        self.decode, self.encode = msgspec.json.Decoder().decode, msgspec.json.Encoder().encode

    async def __call__(self, request: Request) -> Response:
        rows = self.decode(await request.body())["instances"]
        answer = self.encode({"predictions": self.score(rows).tolist()})
        return Response(answer, media_type="application/json")


if __name__ == "__main__":
    given = {"PYTHONPATH": str(Path(__file__).parent), "BENCH_MODEL": os.environ["BENCH_MODEL"]}
    ray.init(
        num_cpus=4, include_dashboard=False, logging_level="warning", object_store_memory=200_000_000,
        _temp_dir=os.environ["RAY_FOLDER"], runtime_env={"env_vars": given},
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Plain.bind(), route_prefix="/predict")
    while True:
        time.sleep(3600)
