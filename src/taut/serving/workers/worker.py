"""A worker: one process, one model, one socket. It holds no keys, reads no files, and answers batches in turn."""

from __future__ import annotations

import socket
from typing import Annotated, Any, Final

import msgspec

from taut.core.canonical import digest_bytes
from taut.core.errors import TautError
from taut.core.schema import ModelSignature
from taut.serving.errors import BadAnswer
from taut.serving.placement import Host, PlacedModel, Placement, Wish, place
from taut.serving.runtime import Cost, LoadedModel
from taut.serving.runtime.code import load_apart
from taut.serving.workers import wire
from taut.serving.workers.leave import STAMP, Attestation, Charge, Kept, attest
from taut.serving.workers.polling import Poll


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to do: the model comes as a file, this beside it.

    memory_bytes: beyond this the process ends. wish: on which devices it may run; code runs on the CPU. artifact: digest of the model,
    which it finds out for itself. charge: who it is.
    """

    signature: ModelSignature
    memory_bytes: int
    wish: Wish = Wish()
    artifact: str = ""
    charge: Charge = Charge()

    def on_cpu(self) -> Order:
        """Return the same without accelerators."""
        return msgspec.structs.replace(self, wish=self.wish.on_cpu())


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says once it can serve.

    inputs: name -> (tensor type, rank). private_bytes: memory that it shares with no other process, 0 where the system
    does not say. placement: None for code. attested: what it says that it is.
    """

    inputs: dict[str, tuple[str, int]]
    cost: Cost | None
    private_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**44)]  # a builder's code may be in the process
    placement: Placement | None = None
    attested: Attestation = Attestation()


_FAILURE_LENGTH: Final = 500
_POLL_NS: Final = 300_000  # about what a caller who asks again at once takes for it, on a busy machine


def serve(sock: socket.socket, model: bytes, order: Order, host: Host, *, build: str = "") -> None:
    """Load the model where it runs best, say so, then answer batches until the gateway closes the socket.

    A model that cannot be loaded, or fails on a batch, is told as FAILED with the reason, a batch without leave as LAPSED; whatever
    else happens ends the process, and the gateway sees the socket close. build: digest of what this process runs.
    """
    said = attest(order.charge, artifact=digest_bytes(model), build=build)
    try:
        loaded, placement = _load(model, order, host)
    except TautError as error:
        wire.send(sock, wire.FAILED, 0, [_said(error)])
        return
    layout = wire.Layout(loaded.tensors, matrix_width=loaded.width if loaded.row_major else None)
    told = Loaded(
        inputs=loaded.tensors, cost=loaded.cost, private_bytes=private_bytes(), placement=placement, attested=said
    )  # fmt: skip
    wire.send(sock, wire.LOADED, 0, [msgspec.json.encode(told)])
    reader, poll, kept = wire.Reader(sock), Poll(_POLL_NS), Kept(order.charge.incarnation)
    while True:
        try:
            frame = _next_frame(reader, poll)
        except EOFError:
            return
        refusal = kept.refusal(frame.body)
        if refusal:
            wire.send(sock, wire.LAPSED, frame.rows, [refusal.encode()])
            continue
        try:
            tensor = loaded.raw(layout.feed(frame.body, frame.rows, at=STAMP.size))
            buffers: list[Any] = wire.output_buffers(tensor)
        except (BadAnswer, ValueError) as error:
            wire.send(sock, wire.FAILED, frame.rows, [_said(error)])
            continue
        move = loaded.moved() if isinstance(loaded, PlacedModel) else None
        if move is None:
            wire.send(sock, wire.DONE, frame.rows, buffers)
        else:
            wire.send(sock, wire.MOVED, frame.rows, wire.moved_buffers(msgspec.json.encode(move), buffers))


def _load(model: bytes, order: Order, host: Host) -> tuple[LoadedModel, Placement | None]:
    if order.signature.form != "onnx":
        return load_apart(model, order.signature), None
    return place(model, order.signature, order.wish, host)


def _next_frame(reader: wire.Reader, poll: Poll) -> wire.Frame:
    """Return the next batch. Looks for it for a moment first, where they come quickly one after the other."""
    poll.begin()
    frame = None
    while frame is None:
        try:
            frame = reader.read(sleep=not poll.again())
        except BlockingIOError:
            continue
    poll.end()
    return frame


def _said(error: Exception) -> bytes:
    return str(error)[:_FAILURE_LENGTH].encode()


def private_bytes() -> int:
    """Return the memory that this process shares with no other, 0 where the system does not say."""
    try:
        with open("/proc/self/smaps_rollup") as file:
            lines = [line.split() for line in file]
        return sum(int(line[1]) for line in lines if line[0] in ("Private_Clean:", "Private_Dirty:")) * 1024
    except (OSError, IndexError, ValueError):
        return 0
