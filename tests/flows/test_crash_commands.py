"""Commands that work without a platform, killed -9 at any edge: what they began is whole or absent, once, and ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from crashes import COMMANDS, ROWS, Books, Death, assert_nothing_runs, edges_of, from_edge, jobs_of, prepare
from installation import ORDER, Installation, Told, until

EDGES = {"apply": 10, "ingest": 10, "train": 32, "release": 30}
"""At least so many edges has each command; `make crash` kills at every one and checks this."""

RELEASE = COMMANDS["release"]


def kill_at(
    shop: Installation, folder: Path, words: tuple[str, ...], edge: int
) -> tuple[Told, list[str]] | None:
    """Run a command that dies at an edge; return what it had said and the edges it passed, None where it lived."""
    death = Death(folder)
    death.arm("command", edge)
    told = Installation(shop.folder, environ=death.environ).process(*words)
    if not death.came:
        assert told.code == 0, told
        return None
    assert told.code == -signal.SIGKILL, told
    return told, death.passed


def carried_on(shop: Installation, name: str) -> None:
    """Be the operator who comes after: by his next command everything is as if nothing had happened."""
    books = Books(shop)
    match name:
        case "apply":
            repeated = shop("apply")
            assert books.count("plans_applied") == 2
            assert shop("apply")["plan"] == repeated["plan"]
        case "ingest":
            shop(*COMMANDS["ingest"])
            assert shop("data", "show", "orders")["rows"] == ROWS
            assert books.count("data_batches", "dataset = 'orders'") == 2
        case _:  # a story: any command that tells one ends those that were left before
            assert shop(*RELEASE)["state"] == "live"
            assert shop("release", "status", "late")["version"] == "late@1"


@pytest.mark.crash
@pytest.mark.parametrize(
    ("name", "edge"),
    [
        (name, edge)
        for name, known in EDGES.items()
        for edge in edges_of(name, known, sample=1 if name == "train" else 2)
    ],
)
def test_a_command_killed_at_any_edge_is_whole_or_absent_and_ends_with_the_next(
    released_template: Installation, tmp_path: Path, name: str, edge: int
) -> None:
    for at in from_edge(edge, EDGES[name]):
        shop = released_template.copy_to(tmp_path / "shop")
        prepare(shop)
        books = Books(shop)
        killed = kill_at(shop, tmp_path / f"death-{at}", COMMANDS[name], at)
        if killed is None:
            assert at > EDGES[name]
            break
        told, passed = killed

        assert_nothing_runs(shop)
        assert books.lost(told) == [], passed[-1]
        carried_on(shop, name)
        assert books.faults() == [], passed[-1]
        books.proved()
        shutil.rmtree(shop.folder)


@pytest.mark.crash
@pytest.mark.parametrize("victim", ["keeper", "worker"])
def test_a_job_that_is_killed_ends_its_run_once_and_leaves_no_process(
    released: Installation, victim: str
) -> None:
    books = Books(released)
    command = released.started("train", "late")
    until(lambda: len(jobs_of(released)) >= 3, within_s=90)  # the keeper, its init, the worker
    jobs = jobs_of(released)
    os.kill(jobs[0] if victim == "keeper" else jobs[-1], signal.SIGKILL)
    out, err = command.communicate(timeout=90)
    told = Told(command.returncode, out, err)

    assert told.code == 10, told
    assert told.document["state"] == "failed"
    assert "SIGKILL" in told.document["error"], told.document
    assert books.lost(told) == []
    assert books.count("runs_runs", "state = 'failed'") == 1
    assert books.count("registry_versions") == 1
    assert books.faults() == []
    assert_nothing_runs(released)
    books.proved()


@pytest.mark.crash
def test_a_job_of_features_that_is_killed_is_done_again_by_its_story(released: Installation) -> None:
    prepare(released)
    released("apply")  # code that changed: the set is computed anew
    books = Books(released)
    command = released.started("train", "late")
    until(lambda: len(jobs_of(released)) >= 3, within_s=90)
    held = [path.parent.name for path in (released.home / "tmp").rglob("source-*.parquet")]
    os.kill(jobs_of(released)[-1], signal.SIGKILL)
    out, err = command.communicate(timeout=90)

    assert command.returncode == 0, (out, err)
    assert "will try again: feature set 'load': the job was killed" in err
    assert [name.startswith("taut-features-") for name in held] == [True]  # rows lie in the home only
    assert books.count("features_materialisations") == 2
    assert books.faults() == []
    assert_nothing_runs(released)
    books.proved()


@pytest.mark.crash
def test_a_command_that_is_killed_while_its_job_runs_takes_it_along_and_the_next_trains_again(
    released: Installation,
) -> None:
    books = Books(released)
    scratch = released.home / "tmp"
    command = released.started("train", "late")
    until(lambda: len(jobs_of(released)) >= 3, within_s=90)
    command.kill()
    command.communicate(timeout=90)
    left = [path.name for path in scratch.rglob("*.parquet")]

    assert_nothing_runs(released)
    assert left == ["frame.parquet"]  # training rows: nowhere else than in the home, and not for long
    released("status")
    assert list(scratch.iterdir()) == []
    assert released(*RELEASE)["state"] == "live"  # carries on first
    assert list(scratch.iterdir()) == []
    assert books.count("runs_runs", "state = 'done'") == 2
    assert books.count("registry_versions") == 2
    assert books.faults() == []
    books.proved()


# That the books would show it


def twice(query: str) -> Callable[[Installation], None]:
    """A fault that the store itself would not allow taut: an effect doubled behind its back."""

    def plant(shop: Installation) -> None:
        with closing(sqlite3.connect(shop.home / "taut.db")) as db, db:
            db.execute(query)

    return plant


PLANTED = {
    "an effect told twice": (
        twice(
            "INSERT INTO ledger_leaves (group_id, number, id, kind, subject, actor, body) "
            "SELECT group_id || 'x', number, id || 'x', kind, subject, actor, body FROM ledger_leaves WHERE kind = 'run.done'"
        ),
        "2 leaves run.done of run:",
    ),
    "an effect that nobody told of": (
        twice("DELETE FROM ledger_leaves WHERE kind = 'release.started'"), "has no leaf release.started",
    ),
    "a release made twice": (
        twice(
            "INSERT INTO release_releases SELECT id || 'x', endpoint, version, strategy, state, replaces, actor, reason, "
            "started_us, ended_us FROM release_releases"
        ),
        "1 stories of release made 2 in release_releases",
    ),
    "rows added twice": (
        twice("UPDATE data_snapshots SET rows = rows + 10 WHERE dataset = 'orders'"), "snapshot orders@1 adds 5991 rows",
    ),
    "a story that does not end": (
        twice("UPDATE story_stories SET state = 'running' WHERE name = 'train'"), "is running",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_the_books_show_a_planted_fault(released: Installation, fault: str) -> None:
    plant, said = PLANTED[fault]
    books = Books(released)
    before = books.faults()

    plant(released)

    assert before == []
    assert any(said in found for found in books.faults()), books.faults()


def test_the_books_show_an_acknowledged_operation_that_is_gone(released: Installation) -> None:
    told = released.told(*RELEASE)
    books = Books(released)
    before = books.lost(told)

    twice(f"DELETE FROM release_releases WHERE id = '{told.document['release']}'")(released)

    assert before == []
    assert told.document["release"] in books.lost(told)


def test_the_books_show_an_answer_that_is_not_in_the_prediction_log(released: Installation) -> None:
    order = json.dumps({"instances": [ORDER]})
    answered = [released("predict", "late", "--data", order)["request_id"] for _ in range(3)]
    books = Books(released)
    before = books.unlogged(answered)

    [segment] = [
        path
        for path in (released.home / "log" / "predictions").rglob("*")
        if answered[2].encode() in path.read_bytes()
    ]
    segment.write_bytes(segment.read_bytes()[: segment.read_bytes().index(answered[2].encode())])

    assert before == set()
    assert books.unlogged(answered) == {answered[2]}
