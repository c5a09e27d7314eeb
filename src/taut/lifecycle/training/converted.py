"""What a builder's model becomes: the form in which it is served, and both ways of asking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy.typing as npt
import polars as pl

from taut.lifecycle.training.encode import Tensor

Label = str | int | bool
Form = Literal["onnx", "code"]


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the form in which it is served, and how to ask that and the original.

    artifact: the bytes of the form; none for code that was not taken down. classes: of a classifier, in the order of its
    probabilities. own: the predictions of what the builder trained, [n, classes] or [n]; None where that was ONNX already.
    served: those of the artifact, once: code that is loaded anew takes the place of the original.
    """

    artifact: bytes
    form: Form
    tensor: Tensor
    classes: tuple[Label, ...]
    own: Callable[[pl.DataFrame], npt.NDArray[Any]] | None
    served: Callable[[pl.DataFrame], npt.NDArray[Any]]
    kind: str
