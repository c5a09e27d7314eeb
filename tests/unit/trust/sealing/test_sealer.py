from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from taut.adapters.keys.file import FileKeys
from taut.adapters.world import SystemRandom
from taut.core.errors import Corrupt, InvalidInput
from taut.core.schema import DType
from taut.testing.records import MemoryRecords, memory_records
from taut.testing.world import ManualClock, SeededRandom
from taut.trust.envelope import Keyring, SubjectKey, metadata
from taut.trust.envelope.tables import subject_keys
from taut.trust.sealing import SEALED_PREFIX, Sealer
from taut.trust.sealing.sealer import _ciphers


class Room(NamedTuple):
    records: MemoryRecords
    sealer: Sealer
    keyring: Keyring


@pytest.fixture(scope="module")
def file_keys(tmp_path_factory: pytest.TempPathFactory) -> FileKeys:
    return FileKeys(tmp_path_factory.mktemp("keys"), random=SystemRandom())


@pytest.fixture
def room(file_keys: FileKeys) -> Iterator[Room]:
    records = memory_records(metadata)
    clock, random = ManualClock(), SeededRandom(7)
    yield Room(records, Sealer(records, file_keys, random, clock), Keyring(file_keys, random, clock))
    records.close()


PEOPLE = pl.DataFrame(
    {
        "who": ["ann", "bob", None, "ann"],
        "name": ["Ann", "Bob", None, None],
        "x": [1.5, 0.1 + 0.2, None, 1e300],
        "n": [1, -(2**63), None, 2**63 - 1],
        "b": [True, False, None, True],
        "d": [date(2020, 2, 29), date(1900, 1, 1), None, date(2200, 12, 31)],
        "t": [datetime(2020, 1, 1, 1, 1, 1, 1, tzinfo=UTC)] * 2 + [None] * 2,
    }
)
PERSONAL = ["name", "x", "n", "b", "d", "t"]


def seal(room: Room, frame: pl.DataFrame, columns: list[str], *, dataset: str = "d") -> pl.DataFrame:
    with room.records.begin() as tx:
        return room.sealer.seal(tx, dataset=dataset, frame=frame, subject="who", columns=columns)


def test_every_type_comes_back_as_it_was(room: Room) -> None:
    sealed = seal(room, PEOPLE, PERSONAL)
    assert all(sealed[column].dtype == pl.String for column in PERSONAL)
    unsealed = room.sealer.unseal(sealed, dataset="d", columns=PERSONAL, subject="who")
    assert unsealed.frame.equals(PEOPLE)
    assert unsealed.forgotten == 0


_VALUES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.none() | st.text(max_size=20),
        st.none() | st.floats(allow_nan=False),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(rows=_VALUES)
def test_sealing_and_unsealing_is_the_identity(
    file_keys: FileKeys, rows: list[tuple[str, str, float]]
) -> None:
    frame = pl.DataFrame(rows, schema={"who": pl.String, "s": pl.String, "f": pl.Float64}, orient="row")
    records = memory_records(metadata)
    sealer = Sealer(records, file_keys, SystemRandom(), ManualClock())
    with records.begin() as tx:
        sealed = sealer.seal(tx, dataset="d", frame=frame, subject="who", columns=["s", "f"])
    types = {"s": DType.STRING, "f": DType.FLOAT}
    unsealed = sealer.unseal(sealed, dataset="d", columns=["s", "f"], subject="who", dtypes=types)
    records.close()
    assert unsealed.frame.equals(frame)
    values = [value for column in ("s", "f") for value in sealed[column].drop_nulls().to_list()]
    assert len(set(values)) == len(values)  # nonces: the same value is never sealed the same way twice


def test_the_sealed_form_holds_neither_value_nor_person(room: Room) -> None:
    frame = pl.DataFrame({"who": ["ann@example.org"], "name": ["Ann Example"]})
    (value,) = seal(room, frame, ["name"])["name"].to_list()
    assert value.startswith(SEALED_PREFIX)
    assert "Ann" not in value
    assert "example" not in value
    with room.records.read() as tx:
        ((pseudonym, _, wrapped, _),) = tx.execute(select(subject_keys)).all()
    assert "ann" not in pseudonym
    assert b"ann" not in wrapped


def test_the_column_key_is_hkdf_of_the_persons_key(room: Room) -> None:
    info = b"taut/seal/1" + b"\x00\x00\x00\x01d" + b"\x00\x00\x00\x04name"
    expected = HKDFExpand(SHA256(), 32, info).derive(b"k" * 32)
    cipher = _ciphers({"p" * 22: SubjectKey(b"k" * 32, b"123456")}, "d", "name")["p" * 22]
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    sealed = cipher.aes.encrypt(b"n" * 12, b"v", cipher.aad)
    assert AESGCM(expected).decrypt(b"n" * 12, sealed, cipher.aad) == b"v"


def test_a_value_moved_to_another_column_dataset_or_person_is_refused(room: Room) -> None:
    frame = pl.DataFrame({"who": ["a", "b"], "x": ["1", "2"], "y": ["3", "4"]})
    sealed = seal(room, frame, ["x", "y"])
    swapped = sealed.rename({"x": "y", "y": "x"})
    with pytest.raises(Corrupt, match="another column"):
        room.sealer.unseal(swapped, dataset="d", columns=["x"])
    with pytest.raises(Corrupt, match="another column or dataset"):
        room.sealer.unseal(sealed, dataset="e", columns=["x"])
    moved = sealed.with_columns(x=pl.col("x").reverse())
    with pytest.raises(Corrupt, match="another person"):
        room.sealer.unseal(moved, dataset="d", columns=["x"], subject="who")
    # a body under another person's pseudonym, both with a key: the pseudonym is authenticated
    one, two = sealed["x"].to_list()
    spliced = pl.DataFrame({"x": [one[:27] + two[27:]]})
    unsealed = room.sealer.unseal(spliced, dataset="d", columns=["x"])
    assert unsealed.frame["x"].to_list() == [None]
    assert unsealed.forgotten == 1  # its key id names a key that this person does not have


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_never_gives_another_value(file_keys: FileKeys, data: st.DataObject) -> None:
    records = memory_records(metadata)
    sealer = Sealer(records, file_keys, SystemRandom(), ManualClock())
    with records.begin() as tx:
        frame = pl.DataFrame({"who": ["ann"], "x": ["secret value"]})
        sealed = sealer.seal(tx, dataset="d", frame=frame, subject="who", columns=["x"])
    value = bytearray(sealed["x"][0].encode())
    at = data.draw(st.integers(0, len(value) * 7 - 1))
    value[at // 7] ^= 1 << at % 7
    changed = pl.DataFrame({"who": ["ann"], "x": [bytes(value).decode("latin-1")]})
    try:
        unsealed = sealer.unseal(changed, dataset="d", columns=["x"], subject="who")
    except Corrupt:
        pass
    else:  # the key id was hit: unreadable, and counted
        assert (unsealed.frame["x"][0], unsealed.forgotten) in ((None, 1), ("secret value", 0))
        assert unsealed.forgotten == 1 or bytes(value).decode("latin-1") != sealed["x"][0]
    finally:
        records.close()


def test_a_forgotten_person_reads_as_null_and_is_counted_and_others_stay(room: Room) -> None:
    sealed = seal(room, PEOPLE, PERSONAL)
    with room.records.begin() as tx:
        assert room.sealer.forget(tx, "ann")
        assert not room.sealer.forget(tx, "ann")
        assert not room.sealer.forget(tx, "nobody")
    types = {"name": DType.STRING}
    unsealed = room.sealer.unseal(sealed, dataset="d", columns=["name", "x"], subject="who", dtypes=types)
    assert unsealed.frame["name"].to_list() == [None, "Bob", None, None]
    assert unsealed.frame["x"].to_list() == [None, 0.1 + 0.2, None, None]
    assert unsealed.forgotten == 3


def test_a_forgotten_person_who_comes_back_gets_another_key(room: Room) -> None:
    before = seal(room, PEOPLE, ["name"])
    with room.records.begin() as tx:
        room.sealer.forget(tx, "ann")
    after = seal(room, PEOPLE, ["name"])
    both = pl.concat([before, after])
    unsealed = room.sealer.unseal(both, dataset="d", columns=["name"], subject="who")
    assert unsealed.frame["name"].to_list() == [None, "Bob", None, None, "Ann", "Bob", None, None]
    assert unsealed.forgotten == 1


def test_forgetting_that_is_rolled_back_did_not_happen(room: Room) -> None:
    sealed = seal(room, PEOPLE, ["name"])

    def forget_and_fail() -> None:
        with room.records.begin() as tx:
            assert room.sealer.forget(tx, "ann")
            raise RuntimeError("later in the transaction")

    with pytest.raises(RuntimeError):
        forget_and_fail()
    assert room.sealer.unseal(sealed, dataset="d", columns=["name"]).frame["name"][0] == "Ann"


def test_another_sealer_that_knew_the_key_forgets_too(room: Room, file_keys: FileKeys) -> None:
    other = Sealer(room.records, file_keys, SystemRandom(), ManualClock())
    sealed = seal(room, PEOPLE, ["name"])
    assert other.unseal(sealed, dataset="d", columns=["name"]).frame["name"][0] == "Ann"
    with room.records.begin() as tx:
        room.sealer.forget(tx, "ann")
    assert other.unseal(sealed, dataset="d", columns=["name"]).frame["name"][0] is None


def test_the_wrapped_key_is_overwritten_before_its_row_goes(room: Room) -> None:
    seal(room, PEOPLE, ["name"])
    with room.records.begin() as tx:
        wrapped = tx.execute(select(subject_keys.c.wrapped)).scalars().all()
        for person in ("ann", "bob"):
            room.sealer.forget(tx, person)
    with room.records.read() as tx:
        image = tx.connection.driver_connection.serialize()  # type: ignore[union-attr]  # sqlite's own face
    assert len(wrapped) == 2
    assert not any(key in image for key in wrapped)


def test_a_row_with_a_value_but_no_person_is_refused(room: Room) -> None:
    frame = pl.DataFrame({"who": ["a", None], "x": ["1", "2"]})
    with pytest.raises(InvalidInput, match=r"1 rows .* row 1"):
        seal(room, frame, ["x"])
    with pytest.raises(InvalidInput, match="people are named"):
        seal(room, pl.DataFrame({"who": [1.5], "x": ["1"]}), ["x"])
    with pytest.raises(InvalidInput, match="no column 'z'"):
        seal(room, frame, ["z"])
    with pytest.raises(InvalidInput, match="zone"):
        seal(room, pl.DataFrame({"who": ["a"], "x": [datetime(2020, 1, 1)]}), ["x"])  # noqa: DTZ001 - refused


def test_a_person_named_by_number_or_text_is_the_same_person(room: Room) -> None:
    sealed = seal(room, pl.DataFrame({"who": [42], "x": ["1"]}), ["x"])
    with room.records.begin() as tx:
        assert room.sealer.forget(tx, "42")
    assert room.sealer.unseal(sealed, dataset="d", columns=["x"]).forgotten == 1


def test_the_subject_itself_can_be_sealed_and_found_by_prefix(room: Room) -> None:
    sealed = seal(room, PEOPLE, ["who", "name"])
    assert room.sealer.unseal(sealed, dataset="d", columns=["who", "name"]).frame.equals(PEOPLE)
    with room.records.read() as tx:
        prefix = room.sealer.sealed_prefix(tx, "ann")
    assert prefix is not None
    assert sealed["who"].str.starts_with(prefix).to_list() == [True, False, None, True]


@pytest.mark.parametrize(
    "value",
    ["plain", "tsl1.", "tsl2." + "a" * 60, "tsl1." + "a" * 22 + ".AAAA", "tsl1." + "a" * 22 + ".!!!!"],
)
def test_what_was_never_sealed_is_corrupt(room: Room, value: str) -> None:
    with pytest.raises(Corrupt, match="row 0 of column 'x'"):
        room.sealer.unseal(pl.DataFrame({"x": [value]}), dataset="d", columns=["x"])
    with pytest.raises(Corrupt, match="never sealed"):
        room.sealer.unseal(pl.DataFrame({"x": [1]}), dataset="d", columns=["x"])


def test_empty_frames_and_columns_pass(room: Room) -> None:
    assert seal(room, PEOPLE.clear(), PERSONAL).height == 0
    assert seal(room, PEOPLE, []).equals(PEOPLE)
    nothing = pl.DataFrame({"who": ["a"], "x": [None]})
    sealed = seal(room, nothing, ["x"])
    unsealed = room.sealer.unseal(sealed, dataset="d", columns=["x"], dtypes={"x": DType.INT})
    assert unsealed.frame["x"].dtype == pl.Int64


def test_two_columns_whose_names_run_together_do_not_share_a_key() -> None:
    key = {"p" * 22: SubjectKey(b"k" * 32, b"123456")}
    one, two = _ciphers(key, "ab", "c")["p" * 22], _ciphers(key, "a", "bc")["p" * 22]
    assert one.aad != two.aad
    assert one.aes.encrypt(b"n" * 12, b"v", None) != two.aes.encrypt(b"n" * 12, b"v", None)


def test_threads_that_seal_at_once_agree_on_each_persons_key(room: Room) -> None:
    results: list[pl.DataFrame] = []
    threads = [
        threading.Thread(target=lambda: results.append(seal(room, PEOPLE, ["name"]))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = pl.concat(results)
    assert room.sealer.unseal(everything, dataset="d", columns=["name"], subject="who").forgotten == 0


def test_another_installations_keys_open_nothing(room: Room, tmp_path: Path) -> None:
    sealed = seal(room, PEOPLE, ["name"])
    stranger = Sealer(room.records, FileKeys(tmp_path, random=SystemRandom()), SystemRandom(), ManualClock())
    with pytest.raises(Corrupt):
        stranger.unseal(sealed, dataset="d", columns=["name"])
