"""Stored bytes that were changed behind taut's back, through the command line: named, and never served."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from installation import ORDER, Installation

from storage_faults import flip_a_bit, local_blob_path
from taut.bootstrap.platform import open_platform

ASK = ("predict", "late", "--data", json.dumps(ORDER))


def blob(shop: Installation, digest: str) -> Path:
    return local_blob_path(shop.home / "blobs", digest)


def served(shop: Installation) -> Path:
    """The model file that gateways load."""
    return next((shop.home / "serving" / "models").glob("*.onnx"))


def test_a_flipped_byte_in_an_artifact_is_corrupt_and_neither_released_nor_newly_served(
    released: Installation,
) -> None:
    answer = released(*ASK)
    model = released("model", "verify", "late@1")["files"]["model.onnx"]
    flip_a_bit(blob(released, model))

    assert model in released.refused("model", "verify", "late@1", exit_code=8, code="corrupt")
    refused = released("release", "start", "late", "1", expect=10)
    assert refused["verdict"] == "reject"
    assert "verified" in refused["reasons"][0]
    assert "was changed on disk" in refused["reasons"][0]
    assert released(*ASK)["predictions"] == answer["predictions"]  # what was placed before is what was signed
    assert released("release", "history", "late")["releases"][-1]["state"] == "live"
    assert released("ledger", "verify")["ok"] is True


def test_a_flipped_byte_in_the_served_file_is_not_served_and_a_release_puts_it_right(
    released: Installation,
) -> None:
    before = released(*ASK)
    flip_a_bit(served(released))

    message = released.refused(*ASK, exit_code=8, code="corrupt")

    assert "late@1" in message
    released("release", "start", "late", "1")
    assert released(*ASK)["predictions"] == before["predictions"]


@pytest.mark.parametrize("name", ["serving/snapshot.json", "serving/trust.json"])
def test_a_flipped_byte_in_what_gateways_work_from_is_not_served_and_taut_up_puts_it_right(
    released: Installation, name: str
) -> None:
    before = released(*ASK)
    flip_a_bit(released.home / name)
    if name == "serving/snapshot.json":
        assert released(*ASK)["predictions"] == before["predictions"]  # from what was applied last
        flip_a_bit(released.home / "serving" / "applied.json")

    released.refused(*ASK, exit_code=8, code="corrupt")

    if name == "serving/snapshot.json":
        flip_a_bit(served(released))
        with released.up() as up:
            answer = up.ask(up.token())
            assert answer.status_code == 200, answer.text
            assert answer.json()["predictions"] == before["predictions"]


def test_a_flipped_byte_in_a_snapshot_is_corrupt_in_every_read_and_nothing_is_made_of_it(
    released: Installation,
) -> None:
    with open_platform(released.home, environ={}) as platform:
        digests = list(platform.blobs.digests())
        rows = [digest for digest in digests if platform.blobs.read(digest)[:4] == b"PAR1"]
    for digest in rows:
        flip_a_bit(blob(released, digest))
    more = released.folder / "data" / "orders-1.csv"
    more.write_text(more.read_text().replace("2026-01", "2027-01"))

    for words in (
        ("features", "build", "load"),
        ("features", "materialize", "load"),
        ("train", "late"),
        ("data", "ingest", "orders", "--from", str(more)),
    ):
        assert "was changed on disk" in released.refused(*words, exit_code=8, code="corrupt"), words
    assert released("data", "show", "orders")["snapshot"] == "orders@1"
    assert [version["version"] for version in released("model", "list")["versions"]] == ["late@1"]
    assert released("ledger", "verify")["ok"] is True


def test_a_flipped_byte_in_the_code_is_corrupt_and_applying_again_puts_it_right(
    released: Installation,
) -> None:
    flip_a_bit(blob(released, released("plan", "show")["manifest"]["bundle"]))

    released.refused("train", "late", exit_code=8, code="corrupt")

    released("apply")
    assert released("features", "build", "load")["features"]


def test_a_changed_ledger_is_found_and_named(released: Installation) -> None:
    leaf = released("ledger", "show", "--kind", "model.registered")["leaves"][0]
    with closing(sqlite3.connect(released.home / "taut.db")) as database:
        changed = database.execute(
            "UPDATE ledger_leaves SET actor = 'mallory' WHERE kind = 'model.registered'"
        )
        assert changed.rowcount == 1
        database.commit()

    report = released("ledger", "verify", expect=8)

    assert report["ok"] is False
    assert leaf["id"] in str(report["faults"])


@pytest.mark.parametrize("key", ["ledger.key", "model.key", "token.key", "root.json"])
def test_a_flipped_byte_in_a_key_is_corrupt_and_says_which(released: Installation, key: str) -> None:
    flip_a_bit(released.home / "keys" / key)
    words = {
        "ledger.key": ("ledger", "checkpoint"),
        "model.key": ("model", "verify", "late@1"),
        "token.key": ASK,
        "root.json": ("ledger", "checkpoint"),
    }[key]

    message = released.refused(*words, exit_code=8, code="corrupt")

    assert "keys" in message


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_database_that_is_none_is_corrupt_and_left_as_it_is(released: Installation, damage: str) -> None:
    path = released.home / "taut.db"
    path.write_bytes(path.read_bytes()[:5000] if damage == "cut" else b"hello" * 1000)
    before = path.read_bytes()

    for words in (("status",), ("ledger", "verify"), ("data", "list")):
        assert "restore it from a backup" in released.refused(*words, exit_code=8, code="corrupt")
    assert path.read_bytes() == before


class Wicked:
    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


def test_rows_that_ask_for_pickle_are_set_aside_and_nothing_is_executed(
    released: Installation, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"
    raw = pickle.dumps(Wicked(marker))
    row = {
        "name": "train", "state": "running", "epoch": 0, "attempts": 0, "due_us": 0, "started_us": 0, "updated_us": 0,
    }  # fmt: skip
    planted = {
        "story_1": base64.b64encode(raw).decode(),
        "story_2": raw,
        "story_3": '{"model": "late", "actor": "owner"}',
    }
    with closing(sqlite3.connect(released.home / "taut.db")) as database:
        for id_, arguments in planted.items():
            values = {**row, "id": id_, "key": id_, "root_id": id_, "arguments": arguments}
            names = ", ".join(values)
            marks = ", ".join("?" for _ in values)
            database.execute(f"INSERT INTO story_stories ({names}) VALUES ({marks})", tuple(values.values()))
        database.execute(
            "INSERT INTO story_steps (story_id, number, kind, name, value, ended_us) VALUES ('story_3', 1, 'step', 'pin', ?, 0)",
            (planted["story_1"],),
        )
        database.commit()
    served(released).write_bytes(raw)

    told = released.told("release", "start", "late", "1")  # carries on with what is due first

    assert told.code == 0, told
    with closing(sqlite3.connect(released.home / "taut.db")) as database:
        states = dict(
            database.execute("SELECT id, state FROM story_stories WHERE id LIKE 'story\\__' ESCAPE '\\'")
        )
    assert states == dict.fromkeys(planted, "stranded")
    assert released(*ASK)["predictions"]
    assert not marker.exists()
