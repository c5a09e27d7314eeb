"""Outputs to the two bodies of the data plane: predictions by row, and tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from taut.core.schema import ModelSignature
from taut.serving.gateway.replies import encode_json
from taut.serving.gateway.tensors import output_names, output_tensors, raw_output, raw_outputs
from taut.serving.runtime import Outputs
from taut.serving.runtime.outputs import Label

if TYPE_CHECKING:  # the runner at the edge has neither
    from taut.serving.gateway.compiled import Endpoint
    from taut.serving.snapshot import ServedModel


class _Binary(msgspec.Struct, gc=False):
    label: Label
    probability: float


class _Multi(msgspec.Struct, gc=False):
    label: Label
    probability: dict[str, float]


class _Value(msgspec.Struct, gc=False):
    value: float


class _Predictions(msgspec.Struct, gc=False):
    predictions: list[_Binary] | list[_Multi] | list[_Value]
    request_id: str
    model_version: str
    release: str


class _Tensors(msgspec.Struct, gc=False, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[dict[str, object]]
    id: str | None = None


_HEADS: Final = 256
_CLASS_NAMES: Final = {True: "true", False: "false"}


def render(
    kind: str,
    endpoint: Endpoint,
    served: ServedModel,
    outputs: Outputs,
    request_id: str,
    v2_id: str | None,
    wanted: tuple[str, ...] | None,
) -> bytes:
    """Return the body of an answer. kind: `v1` or `v2`; wanted: the v2 outputs that were asked for, None for all."""
    if kind == "v2":
        tensors = output_tensors(served.signature, outputs, endpoint.label_type, wanted)
        return encode_json(_Tensors(endpoint.name, served.version.rpartition("@")[2], tensors, v2_id))
    return encode_json(
        _Predictions(predictions(served.signature, outputs), request_id, served.version, served.release)
    )


def render_binary(
    endpoint: Endpoint,
    served: ServedModel,
    outputs: Outputs,
    v2_id: str | None,
    wanted: tuple[str, ...] | None,
    binary: tuple[str, ...],
) -> tuple[int, bytes]:
    """Return how many bytes of a v2 body are JSON, and the body: the JSON, and after it the raw data of `binary` outputs."""
    names = output_names(served.signature) if wanted is None else wanted
    key = (served.version, len(outputs.values) or len(outputs.labels), names)
    fixed = v2_id is None and len(binary) == len(names) and endpoint.label_type != "BYTES"
    head = endpoint.raw_heads.get(key) if fixed else None
    if head is not None:  # the JSON before raw outputs of so many rows is always the same
        return len(head), b"".join(
            [head, *[raw_output(name, outputs, endpoint.label_type) for name in names]]
        )
    tensors = output_tensors(served.signature, outputs, endpoint.label_type, wanted)
    raw = raw_outputs(tensors, binary)
    document = encode_json(_Tensors(endpoint.name, served.version.rpartition("@")[2], tensors, v2_id))
    if fixed:
        if len(endpoint.raw_heads) >= _HEADS:
            endpoint.raw_heads.clear()
        endpoint.raw_heads[key] = document
    return len(document), document + raw


def predictions(signature: ModelSignature, outputs: Outputs) -> list[_Binary] | list[_Multi] | list[_Value]:
    """Return the answers of `/v1/predict` to each row."""
    if signature.output == "value":
        return [_Value(value) for value in outputs.values]
    pairs = zip(outputs.labels, outputs.probabilities, strict=True)
    if len(signature.classes) == 2:
        return [_Binary(label, row[1]) for label, row in pairs]
    names = [class_name(label) for label in signature.classes]
    return [_Multi(label, dict(zip(names, row, strict=True))) for label, row in pairs]


def class_name(label: Label) -> str:
    return _CLASS_NAMES[label] if isinstance(label, bool) else str(label)
