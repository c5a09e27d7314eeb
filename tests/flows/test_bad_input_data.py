"""Bad source files through the command line: each gets a code, what is good is kept, nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from installation import HEADER, Installation

pytestmark = pytest.mark.xdist_group("bad-data")

BEFORE = 5981  # rows of orders@1


def rows(count: int = 100, *, first: int = 100_000) -> list[str]:
    """Good rows that no earlier batch has."""
    return [
        f"{first + at},2026-05-01T{at % 24:02}:00:00Z,north,bike,3,12.5,2026-05-02T{at % 24:02}:00:00Z,false"
        for at in range(count)
    ]


def file_of(lines: Iterable[str], *, header: str = HEADER) -> str:
    return "\n".join([header, *lines]) + "\n"


@pytest.fixture(scope="module")
def shop(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """One installation for all cases of this file: each shows that it left the data as it was, or added to it."""
    return released_template.copy_to(tmp_path_factory.mktemp("bad-data") / "shop")


def state(shop: Installation) -> tuple[str, int]:
    shown = shop("data", "show", "orders")
    return shown["snapshot"], shown["rows"]


@pytest.fixture
def before(shop: Installation) -> tuple[str, int]:
    return state(shop)


def a_folder(path: Path) -> None:
    path.mkdir()


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [a_folder, a_pipe, a_link_to_itself, a_device])
def test_what_cannot_be_read_as_a_file_is_named_and_nothing_hangs(
    shop: Installation, before: tuple[str, int], tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "orders-x.csv"
    make(path)

    message = shop.refused("data", "ingest", "orders", "--from", str(path), exit_code=2, code="invalid_input")

    assert "orders-x.csv" in message
    assert state(shop) == before


def test_an_absent_file_is_named_with_the_nearest_that_is_there(
    shop: Installation, before: tuple[str, int]
) -> None:
    source = str(shop.folder / "data/orders-7.csv")

    message = shop.refused("data", "ingest", "orders", "--from", source, exit_code=3, code="not_found")

    assert "did you mean" in message
    assert "orders-1.csv" in message or "orders-2.csv" in message
    assert state(shop) == before


def test_a_file_that_may_not_be_read_is_denied_and_says_what_to_change(
    shop: Installation, before: tuple[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "orders-x.csv"
    path.write_text(file_of(rows()))
    path.chmod(0)
    # In a user namespace of its own, root is the owner of its files and no more than that.
    plain = ("unshare", "--user") if os.access(path, os.R_OK) else ()
    if plain and subprocess.run([*plain, "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("this root may read everything, and the kernel gives it no namespace in which it may not")

    told = shop.process("data", "ingest", "orders", "--from", str(path), within=plain)

    assert (told.code, told.error[0]) == (4, "denied"), told
    message = told.error[1]
    assert "change its mode or owner" in message
    assert state(shop) == before


def in_utf16(text: str) -> bytes:
    return text.encode("utf-16")


def in_latin1(text: str) -> bytes:
    return text.replace("north", "nörth").encode("latin-1")


def with_a_nul(text: str) -> bytes:
    return text.encode().replace(b"bike", b"bi\0e")


def cut_gzip(text: str) -> bytes:
    import gzip

    return gzip.compress(text.encode())[:-40]


WHOLE_FILES: dict[str, tuple[Callable[[str], bytes], str, tuple[str, ...]]] = {
    # name: (how its bytes are made, suffix, words that the reasons must hold)
    "utf-16": (in_utf16, ".csv", ("utf-16",)),
    "latin-1": (in_latin1, ".csv", ("_record:encoding",)),
    "nul bytes": (with_a_nul, ".csv", ()),
    "cut gzip": (cut_gzip, ".csv.gz", ("damaged",)),
    "no gzip": (str.encode, ".csv.gz", ("damaged",)),
    "no parquet": (str.encode, ".parquet", ()),
    "no json lines": (str.encode, ".jsonl", ()),
    "empty": (lambda _: b"", ".csv", ("empty",)),
    "header only": (lambda text: text.splitlines()[0].encode() + b"\n", ".csv", ()),
    "random bytes": (lambda _: os.urandom(100_000), ".csv", ()),
    "one endless line": (lambda _: b"x" * 20_000_000, ".csv", ()),
    "a column renamed": (lambda text: text.replace("items", "itms").encode(), ".csv", ("items", "itms")),
    "a column gone": (
        lambda text: "\n".join(line.rpartition(",")[0] for line in text.splitlines()).encode(),
        ".csv",
        ("late",),
    ),
    "a column twice": (lambda text: text.replace("items", "carrier").encode(), ".csv", ("carrier",)),
    "another separator": (lambda text: text.replace(",", ";").encode(), ".csv", (";",)),
}


@pytest.mark.parametrize("fault", WHOLE_FILES)
def test_a_file_that_is_wrong_as_a_whole_is_rejected_with_the_reason(
    shop: Installation, before: tuple[str, int], tmp_path: Path, fault: str
) -> None:
    make, suffix, words = WHOLE_FILES[fault]
    path = tmp_path / f"orders-x{suffix}"
    path.write_bytes(make(file_of(rows())))

    told = shop.told("data", "ingest", "orders", "--from", str(path))

    assert told.code == 10, told
    answer = told.document
    assert answer["rejected"] is True
    assert answer["verdict"] == "reject"
    said = " ".join([*answer["reasons"], str(answer["rules"])])
    assert len(answer["reasons"]) >= 1
    assert all(word in said for word in words), said
    assert state(shop) == before


BAD_ROWS: dict[str, tuple[str, str]] = {
    # name: (a line, the rule that it must break)
    "too few fields": ("900001,2026-05-01T00:00:00Z,north,bike", "_record:fields"),
    "too many fields": (rows(1, first=900_001)[0] + ",1,2,3", "_record:fields"),
    "a quote that never ends": ('900001,"2026-05-01T00:00:00Z,north,bike,3,1.5,x,false', "_record"),
    "nan": ("900001,2026-05-01T00:00:00Z,north,bike,3,nan,2026-05-02T00:00:00Z,false", "distance_km"),
    "inf": ("900001,2026-05-01T00:00:00Z,north,bike,3,inf,2026-05-02T00:00:00Z,false", "distance_km"),
    "-inf": ("900001,2026-05-01T00:00:00Z,north,bike,3,-inf,2026-05-02T00:00:00Z,false", "distance_km"),
    "1e999": ("900001,2026-05-01T00:00:00Z,north,bike,3,1e999,2026-05-02T00:00:00Z,false", "distance_km"),
    "nan as an integer": (
        "900001,2026-05-01T00:00:00Z,north,bike,nan,1.5,2026-05-02T00:00:00Z,false",
        "items",
    ),
    "an integer beyond 64 bits": (
        f"{2**64},2026-05-01T00:00:00Z,north,bike,3,1.5,2026-05-02T00:00:00Z,false",
        "order_id",
    ),
    "30 February": ("900001,2026-02-30T00:00:00Z,north,bike,3,1.5,2026-05-02T00:00:00Z,false", "placed_at"),
    "month 13": ("900001,2026-13-01T00:00:00Z,north,bike,3,1.5,2026-05-02T00:00:00Z,false", "placed_at"),
    "hour 25": ("900001,2026-05-01T25:00:00Z,north,bike,3,1.5,2026-05-02T00:00:00Z,false", "placed_at"),
    "year 0": ("900001,0000-01-01T00:00:00Z,north,bike,3,1.5,2026-05-02T00:00:00Z,false", "placed_at"),
    "no date": ("900001,yesterday,north,bike,3,1.5,2026-05-02T00:00:00Z,false", "placed_at"),
    "no truth value": ("900001,2026-05-01T00:00:00Z,north,bike,3,1.5,2026-05-02T00:00:00Z,perhaps", "late"),
    "an unknown word": (
        "900001,2026-05-01T00:00:00Z,moon,bike,3,1.5,2026-05-02T00:00:00Z,false",
        "warehouse",
    ),
    "out of range": (
        "900001,2026-05-01T00:00:00Z,north,bike,3,501,2026-05-02T00:00:00Z,false",
        "distance_km",
    ),
    "a null": ("900001,2026-05-01T00:00:00Z,north,bike,,1.5,2026-05-02T00:00:00Z,false", "items"),
    "a known order": ("1,2026-05-01T00:00:00Z,north,bike,3,1.5,2026-05-02T00:00:00Z,false", "order_id"),
    "a field of 5 MB": (f"900001,{'9' * 5_000_000},north,bike,3,1.5,2026-05-02T00:00:00Z,false", ""),
}


def test_bad_rows_are_set_aside_each_with_its_rule_and_the_good_ones_are_kept(
    shop: Installation, before: tuple[str, int], tmp_path: Path
) -> None:
    good = rows(2_000, first=200_000)
    lines = list(good)
    for at, (line, _) in enumerate(BAD_ROWS.values()):
        lines.insert(at * 90 + 45, line)
    path = tmp_path / "orders-x.csv"
    path.write_text(file_of(lines))

    answer = shop("data", "ingest", "orders", "--from", str(path))

    assert (answer["rows"], answer["quarantined"]) == (len(good), len(BAD_ROWS)), answer["rules"]
    found = {
        record["row"]: record
        for record in shop("data", "quarantine", "orders", "--limit", "1000")["records"]
        if record["source"].endswith("orders-x.csv")
    }
    assert len(found) == len(BAD_ROWS)
    by_row = [found[row] for row in sorted(found)]
    for (name, (line, rule)), record in zip(BAD_ROWS.items(), by_row, strict=True):
        assert any(rule in broken for broken in record["rules"]), (name, record["rules"])
        if len(line) < 1_000:
            assert line.split(",")[0].strip('"') in str(record), name  # the raw record is there to be mended
    assert state(shop)[1] == before[1] + len(good)


def test_moved_columns_are_read_by_their_names(shop: Installation, tmp_path: Path) -> None:
    order = [7, 3, 0, 5, 1, 2, 6, 4]
    lines = [line.split(",") for line in [HEADER, *rows(50, first=300_000)]]
    path = tmp_path / "orders-moved.csv"
    path.write_text("\n".join(",".join(fields[at] for at in order) for fields in lines) + "\n")

    answer = shop("data", "ingest", "orders", "--from", str(path))

    assert (answer["rows"], answer["quarantined"]) == (50, 0)


def test_after_all_of_it_the_ledger_verifies_and_a_batch_repeated_changes_nothing(
    shop: Installation, tmp_path: Path
) -> None:
    path = tmp_path / "orders-again.csv"
    path.write_text(file_of(rows(20, first=400_000)))
    shop("data", "ingest", "orders", "--from", str(path))
    before = state(shop)

    again = shop("data", "ingest", "orders", "--from", str(path))

    assert again["unchanged"] is True
    assert state(shop) == before
    assert shop("ledger", "verify")["ok"] is True
