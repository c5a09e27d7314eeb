"""The unguarded servers that `bench_serving` and `bench_rivals` measure the gateway against: a raw ASGI callable and FastAPI.

Run by uvicorn as `benchmarks.serving_rivals:bare` or `:fast`, with `--factory`; the model's path is in `BENCH_MODEL`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from benchmarks.rivals.shared_model import open_model


def bare() -> Any:
    """Return a raw ASGI callable: read, decode, score, encode, and nothing else."""

    class Body(msgspec.Struct):
        instances: list[list[float]]

    decode, encode, model = msgspec.json.Decoder(Body).decode, msgspec.json.Encoder().encode, open_model()

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

    app, model = FastAPI(), open_model()

    async def predict(body: Body) -> dict[str, Any]:
        return {"predictions": model(body.instances).tolist()}

    predict.__annotations__["body"] = Body  # a local class: its name says nothing outside
    app.post("/predict")(predict)
    return app
