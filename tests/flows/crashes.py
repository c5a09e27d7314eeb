"""Killing processes of an installation at chosen edges, and the books that must be right afterwards."""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from installation import Installation, Json, Told, logged_ids, until

HERE = Path(__file__).parent

ONCE = {
    "run.done", "run.failed", "model.registered", "verdict.model", "verdict.data", "plan.applied", "features.built",
    "release.started", "release.promoted", "release.aborted", "verdict.release", "predictions.sealed",
}  # fmt: skip
"""Leaves that there may be one of for a subject. Others are words that may be said again, such as an approval."""

EFFECTS = {
    "run.": "SELECT 'run:' || id FROM runs_runs",
    "model.registered": "SELECT 'model:' || model || '@' || number FROM registry_versions",
    "verdict.model": "SELECT 'model:' || model || '@' || number FROM registry_versions",
    "verdict.data": "SELECT 'batch:' || id FROM data_batches",
    "features.built": "SELECT 'features:' || id FROM features_materialisations",
    "plan.applied": "SELECT 'plan:' || id FROM plans_applied",
    "release.started": "SELECT 'release:' || id FROM release_releases",
}
"""Leaves and the rows that they tell of: one for each, and none besides."""

STORIES = {"train": "runs_runs", "release": "release_releases"}
"""Each story makes one of these, and nothing else does, in the installations here."""


NEW_ROWS = 50
ROWS = 5_981 + NEW_ROWS
"""Of the dataset orders, once what `prepare` adds was read."""

COMMANDS = {
    "apply": ("apply",),
    "ingest": ("data", "ingest", "orders", "--from", "data/more.csv"),
    "train": ("train", "late"),
    "release": ("release", "start", "late", "1"),
}


def prepare(shop: Installation) -> None:
    """Give each command something to do: code that changed, a file that was not read yet."""
    project = shop.folder / "project.py"
    shop.write("project.py", project.read_text().replace('"trees": 60', '"trees": 20'))
    head, *lines = (shop.folder / "data" / "orders-2.csv").read_text().splitlines()
    new = [f"{900_000 + n},{line.partition(',')[2]}" for n, line in enumerate(lines[-NEW_ROWS:])]
    shop.write("data/more.csv", "\n".join([head, *new]) + "\n")


class Death:
    """Makes a process of an installation die at an edge that it or another passes; see `dying/sitecustomize.py`.

    environ: for the processes whose edges count.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._armings = 0
        folder.mkdir(parents=True)
        path = [str(HERE / "dying"), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environ = {"PYTHONPATH": os.pathsep.join(path), "DYING": str(folder)}

    def arm(self, role: str, edge: int, *, victim: int = 0) -> None:
        """Kill at the edge of this number from here, counted from 1; 0 only counts.

        role: whose edges count: command, control, gateway, supervisor, or those of a thread: housekeeper, story-leases.
        victim: the process to kill; by default the one that passes the edge.
        """
        self._armings += 1
        for name in ("fired", "passed"):
            (self._folder / name).unlink(missing_ok=True)
        staged = self._folder / "staged"
        staged.write_text(f"{role} {edge} {victim} {self._armings}")
        staged.rename(self._folder / "armed")

    def disarm(self) -> None:
        (self._folder / "armed").unlink(missing_ok=True)

    @property
    def came(self) -> bool:
        return (self._folder / "fired").exists()

    @property
    def passed(self) -> list[str]:
        """The edges since `arm`, each with what happened there."""
        path = self._folder / "passed"
        return path.read_text().splitlines() if path.exists() else []


def edges_of(what: str, known: int, *, sample: int) -> list[int]:
    """Return where to kill: everywhere when the environment asks for it, else a sample that is always the same.

    known: so many edges there are at least. The sample takes one from each equal stretch; everywhere ends with an edge
    that is not known, for `from_edge`.
    """
    if os.environ.get("TAUT_CRASH") == "all":
        return list(range(1, known + 2))
    dice = random.Random(f"{os.environ.get('TAUT_CRASH_SEED', '7')} {what}")
    return [
        1 + known * stretch // sample + dice.randrange(max(1, known // sample)) for stretch in range(sample)
    ]


def from_edge(edge: int, known: int) -> range:
    """The edge alone; where it is past those that are known, all that follow it too, of which one will not come."""
    return range(edge, edge + 1 if edge <= known else 10 * known)


class Books:
    """What an installation has on record, read beside it."""

    def __init__(self, shop: Installation) -> None:
        self.shop = shop

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        path = self.shop.home / "taut.db"
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)) as connection:
            yield connection

    def count(self, table: str, where: str = "1") -> int:
        with self.open() as db:
            found: int = db.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0]
        return found

    def stories(self) -> dict[str, str]:
        """State by id."""
        with self.open() as db:
            return dict(db.execute("SELECT id, state FROM story_stories"))

    def await_ends(self, *, within_s: float = 90.0, said: object = "") -> None:
        """Return when every story has ended."""
        until(
            lambda: set(self.stories().values()) <= {"done", "failed"},
            within_s=within_s, said=lambda: f"{self.stories()} {said}",
        )  # fmt: skip

    def faults(self) -> list[str]:
        """Say what is not whole, or there twice. The stories must have ended."""
        with self.open() as db:
            leaves = list(db.execute("SELECT kind, subject FROM ledger_leaves"))
            rows = {kind: [row[0] for row in db.execute(query)] for kind, query in EFFECTS.items()}
            lineage = Counter(
                db.execute(
                    "SELECT a.activity, e.ref FROM lineage_edges e JOIN lineage_activities a ON a.id = e.activity_id "
                    "WHERE e.output"
                )
            )
            running = [row[0] for row in db.execute("SELECT id FROM runs_runs WHERE state = 'running'")]
            started = [
                row[0] for row in db.execute("SELECT id FROM release_releases WHERE state = 'started'")
            ]
            live = list(
                db.execute("SELECT endpoint, count(*) FROM release_releases WHERE state = 'live' GROUP BY 1")
            )
            strange = [*_strange_snapshots(db), *_strange_stories(db)]
        found = [f"story {id_} is {state}" for id_, state in self.stories().items() if state != "done"]
        found += [f"run {id_} never ended" for id_ in running]
        found += [f"release {id_} never ended" for id_ in started]
        found += [f"{count} releases of {endpoint} are live" for endpoint, count in live if count != 1]
        found += [
            f"{count} leaves {kind} of {subject}"
            for (kind, subject), count in Counter(leaves).items()
            if kind in ONCE and count > 1
        ]
        for kind, subjects in rows.items():
            told = Counter(subject for name, subject in leaves if name.startswith(kind))
            found += [f"{subject} has no leaf {kind}" for subject in set(subjects) - set(told)]
            found += [
                f"leaf {kind} tells of {subject}, which is not there" for subject in set(told) - set(subjects)
            ]
        found += [
            f"{activity} made {ref} {count} times"
            for (activity, ref), count in lineage.items()
            if count > 1 and activity in ("train", "data.admit", "release", "apply", "register")
        ]
        return [*found, *strange]

    def proved(self) -> Json:
        """Verify the ledger through the command line and return the report."""
        report = self.shop("ledger", "verify")
        assert report["ok"], report
        assert report["size"] == self.count("ledger_leaves"), report
        assert report["warnings"] == [], report
        return report

    def lost(self, told: Told) -> list[str]:
        """Say what of an acknowledged operation is not on record; what was printed before a kill counts."""
        document = told.document if told.out.strip() else {}
        if not document or "error" in document:
            return []
        wanted = {}
        for field, query in {
            "run": "SELECT 1 FROM runs_runs WHERE id = ?",
            "version": "SELECT 1 FROM registry_versions WHERE model || '@' || number = ?",
            "release": "SELECT 1 FROM release_releases WHERE id = ?",
            "snapshot": "SELECT 1 FROM data_snapshots WHERE dataset || '@' || number = ?",
            "plan": "SELECT 1 FROM plans_applied WHERE id = ?",
            "story": "SELECT 1 FROM story_stories WHERE id = ?",
        }.items():
            if document.get(field):
                wanted[document[field]] = query
        assert wanted, document
        with self.open() as db:
            return [id_ for id_, query in wanted.items() if db.execute(query, (id_,)).fetchone() is None]

    def unlogged(self, answered: list[str]) -> set[str]:
        """Return the acknowledged answers that are not in the prediction log."""
        return set(answered) - logged_ids(self.shop.home)


def _strange_snapshots(db: sqlite3.Connection) -> Iterator[str]:
    """Every admitted batch is in one snapshot, which holds its rows on top of its parent's, and no other is."""
    query = """
        SELECT s.dataset || '@' || s.number, s.rows - coalesce(p.rows, 0), json_extract(b.result, '$.rows'), b.snapshot
        FROM data_snapshots s LEFT JOIN data_snapshots p ON p.dataset = s.dataset AND p.number = s.parent
        LEFT JOIN data_batches b ON b.id = s.batch"""
    for ref, added, rows, number in db.execute(query):
        if added != rows or ref.partition("@")[2] != str(number):
            yield f"snapshot {ref} adds {added} rows, its batch has {rows} and made {number}"
    for table in ("data_snapshots", "data_sources"):
        query = f"SELECT batch, count(*) FROM {table} GROUP BY batch HAVING count(*) > 1 AND '{table}' = 'data_snapshots'"
        for batch, count in db.execute(query):
            yield f"batch {batch} is in {count} snapshots"


def _strange_stories(db: sqlite3.Connection) -> Iterator[str]:
    for name, table in STORIES.items():
        told = db.execute("SELECT count(*) FROM story_stories WHERE name = ?", (name,)).fetchone()[0]
        made = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        if told != made:
            yield f"{told} stories of {name} made {made} in {table}"


def processes_of(shop: Installation) -> dict[int, str]:
    """Return the living processes that have to do with an installation's folder, with their command lines."""
    found = {}
    folder = os.fsencode(shop.folder)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            where = os.fsencode(os.readlink(entry / "cwd"))
            told = (entry / "environ").read_bytes()
        except OSError:  # it is gone, or another user's
            continue
        if line and (folder in line or folder in told or where.startswith(folder)):
            found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def jobs_of(shop: Installation) -> list[int]:
    """Return the processes of jobs: the keeper, the first one inside, the worker, in this order."""
    return sorted(pid for pid, line in processes_of(shop).items() if "taut.entrypoints.job_main" in line)


def assert_nothing_runs(shop: Installation) -> None:
    """Nothing of the installation runs any more, once what was told to end had its moment."""
    until(lambda: not processes_of(shop), within_s=90, said=lambda: str(processes_of(shop)))
