"""`taut batch` as its users know it: scored once, whatever is killed, refused where it must be, found by key."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from crashes import Books, Death, assert_nothing_runs, edges_of, from_edge, jobs_of
from installation import Installation, Json, Told, until

ROWS = 5_981
SCORE = ("batch", "late", "--from", "orders", "--to", "scores")
SMALL = ("--chunk-rows", "40")
EDGES = 36
"""At least so many edges has a batch of three chunks; `make crash` kills at every one and checks this."""
WISHES = """

wishes = taut.Dataset(
    "wishes",
    source=taut.files("data/wishes.csv"),
    contract=taut.Contract(
        [
            taut.column("wish", "int"),
            taut.column("asked_at", "datetime"),
            taut.column("warehouse", "string"),
            taut.column("carrier", "string"),
            taut.column("items", "int", nullable=True),
            taut.column("distance_km", "float"),
        ],
    ),
    entity="wish",
    event_time="asked_at",
)
"""


def platform_of(shop: Installation) -> Any:
    """The rooms of an installation that nothing else works in."""
    from taut.entrypoints.client import connect

    return connect(shop.home)


@pytest.fixture(scope="module")
def undisturbed(released_template: Installation, tmp_path_factory: pytest.TempPathFactory) -> Json:
    """The same work where nothing was killed."""
    return released_template.copy_to(tmp_path_factory.mktemp("calm") / "shop")(*SCORE, *SMALL)


def assert_whole(shop: Installation, undisturbed: Json) -> None:
    """One version, byte for byte what undisturbed work gives, each row once, nothing left over."""
    books = Books(shop)
    told = shop(*SCORE, *SMALL)
    assert told["unchanged"]
    assert (told["result"], told["digest"], told["rows"]) == ("scores@1", undisturbed["digest"], ROWS)
    assert books.count("batch_results") == 1
    assert books.count("batch_chunks") == 0
    assert books.count("ledger_leaves", "kind = 'batch.scored'") == 1
    assert books.count("lineage_activities", "activity = 'batch'") == 1
    with platform_of(shop) as client:
        results = client.transport.platform.results
        ids = results.scan(results.show("scores"), row_ids=True).collect()["_row_id"]
    assert ids.n_unique() == ids.len() == ROWS
    assert books.faults() == []
    books.proved()
    assert_nothing_runs(shop)


def test_a_dataset_is_scored_as_training_saw_it_and_found_by_key(released: Installation) -> None:
    told = released(*SCORE)

    assert (told["result"], told["version"], told["snapshot"]) == ("scores@1", "late@1", "orders@1")
    assert (told["rows"], told["rejected_rows"], told["verdict"]) == (ROWS, 0, "admit")
    assert told["features"] == {"load": "load@1"}
    assert released(*SCORE)["unchanged"]
    (row,) = released("batch", "get", "scores", "--key", "17")["rows"]
    assert row["order_id"] == 17
    why = released("why", f"result:scores@1#{row['_row_id']}")
    (step,) = why["tree"]["made_by"]
    assert {node["ref"].partition(":")[0] for node in step["inputs"]} == {
        "source", "snapshot", "model", "features", "release",
    }  # fmt: skip
    assert step["inputs"][0]["facts"]["row"] == 17
    assert released("batch", "list")["results"][0]["fresh"]
    assert released.told("batch", "get", "scores", "--key", "999999").code == 3
    with platform_of(released) as client:
        compared(client.transport.platform)


def compared(rooms: Any) -> None:
    """Every answer is what the runtime says of the row with the features that training would have joined."""
    from taut.core.refs import VersionRef
    from taut.lifecycle.features import JoinedFeatures
    from taut.serving.runtime import load, score_rows

    loaded = rooms.registry.load(VersionRef("late", 1))
    base = rooms.data.scan(VersionRef("orders", 1), row_ids=True).collect()
    made = rooms.features.materialisation("load")
    frame = rooms.features.training_frame(base, "placed_at", [JoinedFeatures(materialisation=made)])
    names = [item.column.name for item in loaded.signature.inputs]
    outputs = score_rows(load(loaded.model, loaded.signature), frame.select(names).to_dicts())
    result = rooms.results.scan(rooms.results.show("scores"), row_ids=True).collect()
    assert result["_row_id"].to_list() == base["_row_id"].to_list()
    assert result["label"].to_list() == list(outputs.labels)
    assert result["probability"].to_list() == pytest.approx(
        [row[1] for row in outputs.probabilities], abs=1e-6
    )


def test_rows_that_cannot_be_scored_are_named_and_too_many_are_refused(released: Installation) -> None:
    shop = released
    shop.write("project.py", (shop.folder / "project.py").read_text() + WISHES)
    lines = [
        f"{n},2026-02-01T10:00:00Z,{'north' if n % 2 else 'nowhere'},bike,{'' if n == 5 else n},12.5"
        for n in range(1, 21)
    ]
    shop.write(
        "data/wishes.csv", "\n".join(["wish,asked_at,warehouse,carrier,items,distance_km", *lines]) + "\n"
    )
    shop("apply")
    shop("data", "ingest", "wishes")
    words = ("batch", "late@1", "--from", "wishes@1", "--to", "wished", "--max-age", "1h")

    refused = shop.told(*words, "--max-rejected", "0.01")
    assert refused.code == 10, refused
    assert (
        "1 of 20 rows could not be scored (1 rows: column 'items' is null" in refused.document["reasons"][0]
    )
    assert shop("batch", "list") == {"results": []}

    told = shop(*words)
    assert (told["rows"], told["rejected_rows"]) == (19, 1)
    assert (
        len(shop("batch", "get", "wished", "--key", "2")["rows"]) == 1
    )  # of a warehouse that has no features
    assert told["reasons_rejected"] == {"column 'items' is null and must not be": 1}
    (reject,) = shop("batch", "show", "wished", "--rejects", "5")["rejects_shown"]
    assert (reject["wish"], reject["reasons"]) == (5, "column 'items' is null and must not be")
    found = shop("batch", "get", "wished", "--key", "wish=5")
    assert found["rows"] == []
    assert found["rejects"][0]["_row_id"] == reject["_row_id"]
    assert shop.told("why", f"result:wished@1#{reject['_row_id']}").code == 0


def test_what_cannot_be_scored_says_why_and_changes_nothing(released: Installation) -> None:
    def refused(*words: str, exit_code: int, code: str, to: str = "scores") -> str:
        return released.refused("batch", *words, "--to", to, exit_code=exit_code, code=code)

    assert "there is late" in refused("lat3", "--from", "orders", exit_code=3, code="not_found").replace(
        "did you mean 'late'", "there is late"
    )
    assert "'orders'" in refused("late", "--from", "order", exit_code=3, code="not_found")
    assert "it has 1 to 1" in refused("late", "--from", "orders@7", exit_code=3, code="not_found")
    assert "late@9" in refused("late@9", "--from", "orders", exit_code=3, code="not_found")
    assert "is no version" in refused("late@x", "--from", "orders", exit_code=2, code="invalid_input")
    assert "'carrier' is missing" in refused("late", "--from", "backlog", exit_code=2, code="invalid_input")
    assert "not allowed" in refused(
        "late", "--from", "orders", to="My Scores", exit_code=2, code="invalid_input"
    )
    assert "choose 1 to" in refused(
        "late", "--from", "orders", "--chunk-rows", "0", exit_code=2, code="invalid_input"
    )
    assert "from 0 to 1" in refused(
        "late", "--from", "orders", "--max-rejected", "2", exit_code=2, code="invalid_input"
    )
    assert "not understood" in refused(
        "late", "--from", "orders", "--max-age", "soon", exit_code=2, code="invalid_input"
    )
    assert Books(released).count("story_stories", "name = 'batch'") == 0


def test_a_version_that_may_not_serve_does_not_score(released: Installation) -> None:
    assert released("train", "late")["version"] == "late@2"

    told = released.told("batch", "late@2", "--from", "orders", "--to", "scores")

    assert told.code == 10, told
    assert "approved: late@2 is candidate" in told.document["reasons"][0]
    assert released("batch", "list") == {"results": []}
    assert Books(released).count("ledger_leaves", "kind = 'verdict.batch'") == 1
    released("model", "approve", "late@2")
    assert released("batch", "late@2", "--from", "orders", "--to", "scores")["result"] == "scores@1"


def test_features_that_were_never_built_are_asked_for(released: Installation) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(f"sqlite:///{released.home / 'taut.db'}")
    with engine.begin() as tx:
        tx.execute(text("DELETE FROM features_materialisations"))
    engine.dispose()

    said = released.refused(*SCORE, exit_code=3, code="not_found")

    assert "features build" in said


def moment(what: str) -> int:
    """So many chunks are kept when the victim dies: another for each victim, always the same."""
    return random.Random(f"{os.environ.get('TAUT_CRASH_SEED', '7')} batch {what}").randrange(3, 100)


def await_chunks(shop: Installation, count: int) -> None:
    def there() -> bool:
        with suppress(sqlite3.OperationalError):  # it is being opened, or moved to new tables
            return Books(shop).count("batch_chunks") >= count
        return False

    until(there, within_s=90)


@pytest.mark.crash
def test_a_job_that_is_killed_is_replaced_while_the_command_waits(
    released: Installation, undisturbed: Json
) -> None:
    command = released.started(*SCORE, *SMALL)
    await_chunks(released, moment("job"))
    os.kill(jobs_of(released)[-1], signal.SIGKILL)
    out, err = command.communicate(timeout=90)
    told = Told(command.returncode, out, err)

    assert told.code == 0, told
    assert told.document["digest"] == undisturbed["digest"]
    assert_whole(released, undisturbed)


@pytest.mark.crash
def test_a_command_that_is_killed_is_carried_on_by_the_next(
    released: Installation, undisturbed: Json
) -> None:
    command = released.started(*SCORE, *SMALL)
    before = moment("command")
    await_chunks(released, before)
    command.kill()
    command.communicate()
    assert_nothing_runs(released)
    kept = Books(released).count("batch_chunks")
    assert kept >= before

    assert_whole(released, undisturbed)


@pytest.mark.crash
def test_a_control_that_is_killed_carries_on_when_it_is_back(
    released: Installation, undisturbed: Json
) -> None:
    with released.up() as up:
        command = released.started(*SCORE, *SMALL)
        await_chunks(released, moment("control"))
        up.kill("control")
        out, err = command.communicate(timeout=90)
        assert command.returncode == 7, (out, err)
        up.await_ready()
        told = released.done(*SCORE, *SMALL)  # joins the story, or finds what it came to
        assert told["result"] == "scores@1"
    assert_whole(released, undisturbed)


@pytest.mark.crash
@pytest.mark.parametrize("edge", edges_of("batch", EDGES, sample=3))
def test_a_command_killed_at_any_edge_scores_once_in_the_end(
    released_template: Installation, tmp_path: Path, undisturbed: Json, edge: int
) -> None:
    words = (*SCORE, "--chunk-rows", "2000")
    for at in from_edge(edge, EDGES):
        shop = released_template.copy_to(tmp_path / f"shop-{at}")
        death = Death(tmp_path / f"death-{at}")
        death.arm("command", at)
        told = Installation(shop.folder, environ=death.environ).process(*words)
        if not death.came:
            assert told.code == 0, told
            assert at > EDGES
            break
        assert told.code == -signal.SIGKILL, told
        assert_nothing_runs(shop)

        carried = shop(*words)
        assert (carried["result"], carried["rows"]) == ("scores@1", ROWS), death.passed[-1]
        assert Books(shop).count("batch_results") == 1
        assert Books(shop).count("batch_chunks") == 0
        assert Books(shop).faults() == [], death.passed[-1]
        shop("ledger", "checkpoint")  # a death between sequencing and signing leaves that to the next leaf
        Books(shop).proved()
        shutil.rmtree(shop.folder)
