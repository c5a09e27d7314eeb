"""Tensors to columns: the response gate of a batch. A row whose answer is none is set aside, the others stand."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from taut.core.errors import InvalidInput
from taut.core.frames import TO_POLARS
from taut.core.schema import Column, DType, ModelSignature

_SLACK: Final = 1e-3  # as in the runtime's own gate: FP32 sums of probabilities are off by less

LABEL: Final = "label"
PROBABILITY: Final = "probability"
VALUE: Final = "value"


def answer_schema(signature: ModelSignature) -> tuple[Column, ...]:
    """Return the columns of an answer: `label` and `probability` of the positive class, for more than two classes
    `probability_CLASS` each, or `value`."""
    if signature.output == "value":
        return (Column(VALUE, DType.FLOAT),)
    label = Column(LABEL, _label_type(signature))
    if len(signature.classes) == 2:
        return label, Column(PROBABILITY, DType.FLOAT)
    return label, *(Column(f"{PROBABILITY}_{name}", DType.FLOAT) for name in signature.classes)


def answer_columns(
    signature: ModelSignature, tensor: npt.NDArray[Any]
) -> tuple[list[pl.Series], npt.NDArray[np.bool_]]:
    """Return the answers as columns, in the order of `answer_schema`, and which rows have one.

    tensor: float, `[rows]` or `[rows, outputs]`; a row that the model failed on is NaN.
    Raises InvalidInput for a shape that is not the signature's.
    """
    wide = tensor.astype(np.float64)
    if signature.output == "value":
        if wide.ndim == 2 and wide.shape[1] != 1:
            raise InvalidInput(f"the model gave shape {tensor.shape}, wanted one value a row")
        flat = wide.reshape(len(wide))
        return [pl.Series(VALUE, flat)], np.isfinite(flat)
    return _classified(signature, _by_class(wide, len(signature.classes)))


def _by_class(wide: npt.NDArray[np.float64], classes: int) -> npt.NDArray[np.float64]:
    """Accept the probability of the positive class alone, as boosters give it."""
    if classes == 2 and (wide.ndim == 1 or wide.shape[1] == 1):
        positive = wide.reshape(len(wide))
        return np.stack([1 - positive, positive], axis=1)
    if wide.ndim != 2 or wide.shape[1] != classes:
        raise InvalidInput(f"the model gave shape {wide.shape}, the signature has {classes} classes")
    return wide


def _classified(
    signature: ModelSignature, found: npt.NDArray[np.float64]
) -> tuple[list[pl.Series], npt.NDArray[np.bool_]]:
    shares = np.ascontiguousarray(
        found.T
    )  # of a class: along two or three numbers a row everything costs more
    fine = (shares.min(axis=0) >= -_SLACK) & (np.abs(shares.sum(axis=0) - 1.0) < _SLACK)  # NaN compares false
    best = np.where(fine, shares[1] > shares[0] if len(shares) == 2 else shares.argmax(axis=0), 0)
    classes = [str(name) if _label_type(signature) is DType.STRING else name for name in signature.classes]
    names = pl.Series(LABEL, classes, dtype=TO_POLARS[_label_type(signature)])
    label = names.gather(pl.Series(best, dtype=pl.UInt32))
    if len(classes) == 2:
        return [label, pl.Series(PROBABILITY, shares[1])], fine
    each = [
        pl.Series(f"{PROBABILITY}_{name}", share)
        for name, share in zip(signature.classes, shares, strict=True)
    ]
    return [label, *each], fine


def _label_type(signature: ModelSignature) -> DType:
    kinds = {type(name) for name in signature.classes}
    return (
        {bool: DType.BOOL, int: DType.INT}.get(kinds.pop(), DType.STRING) if len(kinds) == 1 else DType.STRING
    )
