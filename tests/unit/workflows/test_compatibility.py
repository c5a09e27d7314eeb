"""What a caller of the live version would trip over is named before a release."""

from __future__ import annotations

import msgspec
import pytest

from taut.core.schema import Column, DType, ModelInput, ModelSignature
from taut.workflows.releasable import incompatibilities

LIVE = ModelSignature(
    request=(Column("origin", DType.STRING), Column("items", DType.INT, nullable=True)),
    inputs=(ModelInput(column=Column("items", DType.INT)),),
    output="probability",
    classes=(0, 1),
)


def with_request(*columns: Column) -> ModelSignature:
    return msgspec.structs.replace(LIVE, request=columns)


def test_the_same_signature_is_compatible() -> None:
    assert incompatibilities(LIVE, LIVE) == []


def test_a_new_optional_column_is_compatible() -> None:
    assert (
        incompatibilities(LIVE, with_request(*LIVE.request, Column("note", DType.STRING, nullable=True)))
        == []
    )


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (with_request(*LIVE.request, Column("note", DType.STRING)), "column note is new and required"),
        (with_request(LIVE.request[0]), "column items is no longer taken"),
        (with_request(Column("origin", DType.INT), LIVE.request[1]), "column origin was string, is int"),
        (with_request(LIVE.request[0], Column("items", DType.INT)), "column items may no longer be null"),
        (msgspec.structs.replace(LIVE, classes=(0, 1, 2)), "the answer has another form"),
        (msgspec.structs.replace(LIVE, output="value", classes=()), "the answer has another form"),
    ],
)
def test_each_break_of_the_interface_is_named(candidate: ModelSignature, said: str) -> None:
    assert incompatibilities(LIVE, candidate) == [said]
