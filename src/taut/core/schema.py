"""Columns, schemas and the signature of a model: what the data plane and the stages agree on."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from taut.core.errors import InvalidInput


class DType(StrEnum):
    """Types of columns, few on purpose. Integers are 64 bit, times are UTC with microseconds."""

    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    STRING = "string"
    DATE = "date"
    DATETIME = "datetime"

    @property
    def numeric(self) -> bool:
        return self in (DType.BOOL, DType.INT, DType.FLOAT)


class Column(msgspec.Struct, frozen=True):
    """A name, a type and whether null is a legal value."""

    name: str
    dtype: DType
    nullable: bool = False


class Schema(msgspec.Struct, frozen=True):
    """Ordered columns with distinct names."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InvalidInput(
                f"schema names {', '.join(twice)} more than once: give each column its own name"
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise InvalidInput(f"no column {name!r}: the schema has {', '.join(self.names)}")


MODEL_FILES: Final = {"onnx": "model.onnx", "code": "model.taut", "graph": "graph.json"}
"""The form of a model's artifact -> its name among the files of a run and of a version."""


class ModelInput(msgspec.Struct, frozen=True, kw_only=True):
    """One input of a model, in the model's own order.

    feature_set: None when the caller sends the value; otherwise the feature set that it is looked up in.
    """

    column: Column
    feature_set: str | None = None


class FeatureLookup(msgspec.Struct, frozen=True, kw_only=True):
    """How a request finds a row of a feature set: request columns, in the order of the set's entity columns."""

    feature_set: str
    entity: tuple[str, ...]  # the set's own key columns
    keys: tuple[str, ...]  # the request columns that carry their values
    max_age_s: float | None = None  # older values are not served


class ModelSignature(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes and gives; signed with its artifact and checked on every request.

    request: what the caller sends. inputs: what the model gets, in its order; each is a request column or a feature.
    event_time: optional request column with the time that the question is about; features older than their lookup's
    max_age at that time are not served. Absent, the time of the request counts.
    tensor: `columns` feeds one input a column, `matrix` one FP32 tensor [-1, n] named `input`.
    form: what the artifact is: `onnx`; `code`, a callable of the project, which runs in workers and jobs only; `graph`, a plan that
    names versions of other models.
    """

    request: tuple[Column, ...]
    inputs: tuple[ModelInput, ...]
    lookups: tuple[FeatureLookup, ...] = ()
    event_time: str | None = None
    output: Literal["probability", "value"]
    classes: tuple[str | int | bool, ...] = ()
    tensor: Literal["columns", "matrix"] = "matrix"
    form: Literal["onnx", "code", "graph"] = "onnx"

    @property
    def file(self) -> str:
        """The name of the artifact among a version's files."""
        return MODEL_FILES[self.form]
