from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, InvalidInput, NotFound
from taut.core.schema import DType
from taut.ports.records import Tx
from taut.testing.records import memory_records
from taut.testing.world import ManualClock
from taut.trust.envelope import metadata
from taut.trust.sealing import Sealer


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sealer, Tx]]:
    records = memory_records(metadata)
    keys = FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())
    with records.begin() as tx:
        yield Sealer(records, keys, SystemRandom(), ManualClock()), tx
    records.close()


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.none() | st.text(max_size=10) | st.sampled_from(["a", "b"]), max_size=12))
def test_tokens_can_be_taken_back_and_keep_equality(
    opened: tuple[Sealer, Tx], values: list[str | None]
) -> None:
    sealer, tx = opened
    series = pl.Series("x", values, dtype=pl.String)
    tokens = sealer.tokenise(tx, series, dataset="d")
    assert sealer.detokenise(tx, tokens, dataset="d", dtype=DType.STRING).equals(series)
    assert (tokens.n_unique(), tokens.null_count()) == (series.n_unique(), series.null_count())


@pytest.mark.parametrize(
    "values", [[1, None, 1], [1.5, -0.0, None], [True, False, None], [date(2020, 1, 1), None],
               [datetime(2020, 1, 1, tzinfo=UTC), None]],
)  # fmt: skip
def test_tokens_of_every_type_can_be_taken_back(opened: tuple[Sealer, Tx], values: list[object]) -> None:
    sealer, tx = opened
    series = pl.Series("x", values)
    assert sealer.detokenise(tx, sealer.tokenise(tx, series, dataset="d"), dataset="d").equals(series)


@pytest.mark.parametrize(
    "series",
    [
        pl.Series("x", [0.0, -0.0, float("nan"), None, 1.5, -0.0]),
        pl.Series("x", [1_000, 1_001, None], dtype=pl.Datetime("ns", "UTC")),  # one and the same microsecond
    ],
)
def test_values_that_are_equal_have_one_mask_however_they_are_written(
    opened: tuple[Sealer, Tx], series: pl.Series
) -> None:
    sealer, tx = opened

    for masked in (sealer.tokenise(tx, series, dataset="d"), sealer.pseudonymise(tx, series, dataset="d")):
        assert masked[0] == masked[1]
        assert masked.null_count() == series.null_count()
        assert masked.n_unique() == (4 if series.dtype.is_float() else 2)


def test_a_token_is_bound_to_dataset_and_column(opened: tuple[Sealer, Tx]) -> None:
    sealer, tx = opened
    series = pl.Series("x", ["value"])
    tokens = sealer.tokenise(tx, series, dataset="d")
    assert tokens[0] != sealer.tokenise(tx, series, dataset="e")[0]
    assert tokens[0] != sealer.tokenise(tx, series.alias("y"), dataset="d")[0]
    for wrong in (
        tokens.alias("y"),
        pl.Series("x", ["ttk1.AAAA"]),
        pl.Series("x", ["plain"]),
        pl.Series("x", [tokens[0] + "A"]),
    ):
        with pytest.raises(Corrupt):
            sealer.detokenise(tx, wrong, dataset="d")
    with pytest.raises(NotFound, match="never"):
        sealer.detokenise(tx, tokens, dataset="never")


def test_pseudonyms_keep_joins_within_a_dataset_only(opened: tuple[Sealer, Tx]) -> None:
    sealer, tx = opened
    one = sealer.pseudonymise(tx, pl.Series("x", ["7", "8", None, "7"]), dataset="d")
    two = sealer.pseudonymise(tx, pl.Series("y", [7, 9]), dataset="d")
    other = sealer.pseudonymise(tx, pl.Series("x", ["7"]), dataset="e")
    assert one[0] == one[3] == two[0] != one[1]
    assert one[2] is None
    assert other[0] != one[0]
    assert all(value.startswith("tps1.") and len(value) == 27 for value in one.drop_nulls())


def test_each_word_of_the_contract_does_what_it_says(opened: tuple[Sealer, Tx]) -> None:
    sealer, tx = opened
    frame = pl.DataFrame(
        {"who": ["a", None], "s": ["x", None], "n": [1, 2], "k": [1, 2], "t": ["u", "v"], "r": [5, 6]}
    )
    masked = sealer.protect(
        tx, dataset="d", frame=frame, subject="who",
        handling={"who": "pseudonymise", "s": "seal", "n": "pseudonymise", "k": "keep", "t": "tokenise", "r": "redact"},
    )  # fmt: skip
    assert masked.columns == frame.columns
    assert masked["s"].str.starts_with("tsl1.").to_list() == [True, None]
    assert masked["who"].str.starts_with("tps1.").to_list() == [True, None]
    assert masked["n"].str.starts_with("tps1.").all()
    assert masked["t"].str.starts_with("ttk1.").all()
    assert masked["k"].to_list() == [1, 2]
    assert masked["r"].to_list() == [None, None]
    assert masked["r"].dtype == frame["r"].dtype
    redacted = sealer.protect(tx, dataset="d", frame=frame, handling={"s": "redact"})
    assert redacted["s"].to_list() == ["[redacted]", None]


def test_sealing_without_a_subject_is_refused(opened: tuple[Sealer, Tx]) -> None:
    sealer, tx = opened
    with pytest.raises(InvalidInput, match="no subject"):
        sealer.protect(tx, dataset="d", frame=pl.DataFrame({"x": ["1"]}), handling={"x": "seal"})
