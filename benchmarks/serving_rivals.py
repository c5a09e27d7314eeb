"""The unguarded servers that `bench_serving` measures the gateway against: a raw ASGI callable and FastAPI.

Run by uvicorn as `benchmarks.serving_rivals:bare` or `:fast`, with `--factory`; the model's path is in `BENCH_MODEL`.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort


def _model() -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["probabilities"], {"input": np.asarray(rows, dtype=np.float32)})[0]


def bare() -> Any:
    """Return a raw ASGI callable: read, decode, score, encode, and nothing else."""

    class Body(msgspec.Struct):
        instances: list[list[float]]

    decode, encode, model = msgspec.json.Decoder(Body).decode, msgspec.json.Encoder().encode, _model()

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        event = await receive()
        body = event.get("body", b"")
        while event.get("more_body"):
            event = await receive()
            body += event.get("body", b"")
        answer = encode({"predictions": model(decode(body).instances).tolist()})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


def fast() -> Any:
    """Return a FastAPI application as its tutorial writes one."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Body(BaseModel):
        instances: list[list[float]]

    app, model = FastAPI(), _model()

    async def predict(body: Body) -> dict[str, Any]:
        return {"predictions": model(body.instances).tolist()}

    predict.__annotations__["body"] = Body  # a local class: its name says nothing outside
    app.post("/predict")(predict)
    return app
