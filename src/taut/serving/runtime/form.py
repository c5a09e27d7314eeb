"""What whoever asks a model needs of it, wherever the model itself lies: its tensors, its answers' check, its cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy.typing as npt

from taut.core.errors import InvalidInput
from taut.core.schema import Column, DType, ModelSignature
from taut.serving.runtime.encode import Feed, Matrix, columns_encoder
from taut.serving.runtime.outputs import Outputs, output_checker
from taut.serving.runtime.rows import Value

CAUTIOUS_ROWS: Final = 16

TensorForms = dict[str, tuple[str, int]]
"""Input name -> (tensor type as ONNX names it, rank)."""


Microseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""What a worker says of its model is read with these bounds: a builder's code may be in it."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch of n rows costs: `base_us + row_us * n`, measured at load."""

    base_us: Microseconds
    row_us: Microseconds

    def us(self, rows: int) -> float:
        """Return the microseconds of a batch."""
        return self.base_us + self.row_us * rows

    def rows_within(self, budget_us: float) -> int:
        """Return the largest batch that fits the budget, at least 1."""
        return max(1, int((budget_us - self.base_us) / max(self.row_us, 0.01)))


_KINDS: Final = {
    DType.BOOL: ("tensor(bool)", "tensor(float)"),
    DType.INT: ("tensor(int64)", "tensor(double)"),
    DType.FLOAT: ("tensor(float)", "tensor(float)"),  # as every model gets them: what FP32 can hold
    DType.STRING: ("tensor(string)", "tensor(string)"),
}
"""Type of a column -> the tensor that carries it, and the one that does where it may be null."""


class ModelForm:
    """A model as it is asked: in this process, or in workers.

    signature: what it was checked against. tensors: input name -> (tensor type, rank). matrix: what packs rows, where
    the model takes one FP32 tensor. encode: from values to tensors. check: the response gate, from a raw tensor and its
    rows to outputs. cost: None when the model could not be run on neutral values.
    """

    cost: Cost | None

    def __init__(self, signature: ModelSignature, tensors: TensorForms) -> None:
        self.signature: Final = signature
        self.tensors: Final = tensors
        self.row_major: Final = signature.tensor == "matrix"
        self.width: Final = len(signature.inputs)
        self.matrix: Final = Matrix([item.column for item in signature.inputs]) if self.row_major else None
        self.encode: Final[Callable[[Sequence[Sequence[Value]]], Feed]] = (
            columns_encoder(signature.inputs, tensors) if self.matrix is None else self.matrix.encode
        )
        self.check: Final[Callable[[npt.NDArray[Any], int], Outputs]] = output_checker(signature)

    def rows_within(self, budget_us: float) -> int:
        """Return the largest batch that answers within the budget; a cautious one when the cost is not known."""
        return CAUTIOUS_ROWS if self.cost is None else self.cost.rows_within(budget_us)


def code_tensors(signature: ModelSignature) -> TensorForms:
    """Return the tensors that a code model of a signature takes: one of rank 1 for each input."""
    if signature.tensor != "columns":
        raise InvalidInput("a code model takes its inputs as columns: train it again")
    return {item.column.name: (_kind(item.column), 1) for item in signature.inputs}


def _kind(column: Column) -> str:
    kinds = _KINDS.get(column.dtype)
    if kinds is None:
        raise InvalidInput(
            f"input {column.name!r} is a {column.dtype}, which no code model takes: train it again"
        )
    return kinds[1] if column.nullable else kinds[0]
