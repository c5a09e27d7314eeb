"""Raw tensors to checked outputs: the response gate of data models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from taut.core.schema import ModelSignature
from taut.serving.errors import BadAnswer

_SLACK: Final = 1e-3  # FP32 sums of probabilities are off by less
_SCALAR_ROWS: Final = 64  # above this many rows numpy is faster than a loop
Label = str | int | bool


class Outputs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a model said about n rows, checked: finite, of the signature's shape, probabilities that are some.

    labels, probabilities: of a classifier; the label is the class with the highest probability, the first of equals;
    each row of `probabilities` has one value a class, in the signature's order. values: of a regressor. Encodes as the
    prediction log's Answer.
    """

    labels: Sequence[Label] = ()
    probabilities: Sequence[Sequence[float]] = ()
    values: Sequence[float] = ()


def output_checker(signature: ModelSignature) -> Callable[[npt.NDArray[Any], int], Outputs]:
    """Return the response gate of a signature: (tensor, rows) -> Outputs, raising BadAnswer."""
    if signature.output == "value":
        return _values
    classes = signature.classes
    width = len(classes)
    if width == 2:
        low, high = classes

        def binary(tensor: npt.NDArray[Any], count: int) -> Outputs:
            if tensor.shape != (count, 2):
                tensor = _as_two(tensor, count)
            if count > _SCALAR_ROWS:
                return _many(tensor, classes)
            rows = tensor.tolist()
            labels = []
            for left, right in rows:
                if not (left >= -_SLACK and right >= -_SLACK and -_SLACK < left + right - 1.0 < _SLACK):
                    raise BadAnswer(f"the model gave the probabilities {left}, {right}: they must sum to 1")
                labels.append(high if right > left else low)
            return Outputs(labels=labels, probabilities=rows)

        return binary

    def multi(tensor: npt.NDArray[Any], count: int) -> Outputs:
        if tensor.shape != (count, width):
            raise BadAnswer(f"the model gave shape {tensor.shape}, wanted ({count}, {width})")
        return _many(tensor, classes)

    return multi


def _as_two(tensor: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Accept the probability of the positive class alone, as boosters give it."""
    if tensor.shape not in ((count,), (count, 1)):
        raise BadAnswer(f"the model gave shape {tensor.shape}, wanted ({count}, 2)")
    positive = tensor.reshape(count)
    return np.stack([1 - positive, positive], axis=1)


def _many(tensor: npt.NDArray[Any], classes: Sequence[Label]) -> Outputs:
    sums = tensor.sum(axis=1)
    fine = bool((tensor >= -_SLACK).all() and (np.abs(sums - 1.0) < _SLACK).all())  # NaN compares false
    if not fine:
        raise BadAnswer("the model gave probabilities that are not finite or do not sum to 1")
    labels = [classes[index] for index in tensor.argmax(axis=1).tolist()]
    return Outputs(labels=labels, probabilities=tensor.tolist())


def _values(tensor: npt.NDArray[Any], count: int) -> Outputs:
    if tensor.size != count or tensor.shape[:1] != (count,):
        raise BadAnswer(f"the model gave shape {tensor.shape}, wanted ({count},)")
    values = tensor.reshape(count).tolist()
    if not all(map(math.isfinite, values)):
        raise BadAnswer("the model gave a value that is not finite")
    return Outputs(values=values)
