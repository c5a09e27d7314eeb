"""Processes of a running platform, killed -9 while it works and answers: nothing acknowledged is lost, nothing is twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from crashes import (
    COMMANDS,
    ROWS,
    Books,
    Death,
    assert_nothing_runs,
    edges_of,
    from_edge,
    jobs_of,
    prepare,
)
from installation import Asking, Installation, Told, Up, until

from taut.entrypoints.children import alive

# httpcore leaves a socket that found nobody listening to the garbage collector (control was just killed)
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

EDGES = {"apply": 4, "ingest": 4, "train": 26, "release": 24, "kept": 6}
"""At least so many edges has control while it does what a command asks; `make crash` kills at every one.

kept: those of its housekeeper, which publishes an applied plan and sequences the ledger.
"""

KILLS = [("housekeeper", "apply", "kept")]
if os.environ.get("TAUT_CRASH") == "all":
    KILLS += [(victim, name, name) for victim in ("control", "gateway-0", "supervisor") for name in COMMANDS]
"""Who is killed, while what is done, and whose edges count."""


class Running:
    """A platform that is asked all the time, and the means to kill its processes."""

    def __init__(self, shop: Installation, up: Up, death: Death, asking: Asking, bearer: str) -> None:
        self.shop = shop
        self.up = up
        self.death = death
        self.asking = asking
        self.bearer = bearer
        self.books = Books(shop)

    def kill(self, victim: str, name: str, edge: int) -> bool:
        """Carry out a command, and kill a process at an edge of control; return whether it came to that.

        Afterwards the platform is whole again, the command's work has ended, and all of it is on record once.
        """
        pid = self.up.pid("control" if victim == "housekeeper" else victim)
        self.death.arm("housekeeper" if victim == "housekeeper" else "control", edge, victim=pid)
        told = self.shop.told(*COMMANDS[name])
        if victim == "housekeeper":  # it takes its time
            with suppress(AssertionError):
                until(lambda: self.death.came, within_s=60 if edge <= EDGES["kept"] else 5)
        self.death.disarm()
        if not self.death.came:
            assert told.code == 0, told
            return False
        until(lambda: not alive(pid))
        where = f"{victim} killed {self.death.passed[-1]} of {name}, which said {told}"
        assert told.code in (0, 7), where
        self.mend(victim)
        self.books.await_ends(said=where)
        self.repeat(name, told)
        assert self.books.lost(told) == [], where
        assert self.books.faults() == [], where
        self.asking.more()
        assert self.asking.refused == [], where
        return True

    def mend(self, victim: str) -> None:
        """The supervisor starts its children again; who starts the supervisor again is a person."""
        if victim == "supervisor":
            assert self.up.process is not None
            self.up.process.wait()
            self.up.start()
        self.up.await_ready()

    def repeat(self, name: str, told: Told) -> None:
        """Do again what no answer came to, where that is no work of its own: once is what it must come to."""
        if name == "apply":
            plan = told.document["plan"] if told.code == 0 else self.shop(*COMMANDS[name])["plan"]
            assert self.shop("apply")["plan"] == plan
            assert self.books.count("plans_applied") == 2
        if name == "ingest":
            self.shop(*COMMANDS[name])
            assert self.shop("data", "show", "orders")["rows"] == ROWS
            assert self.books.count("data_batches", "dataset = 'orders'") == 2


@contextmanager
def running(template: Installation, folder: Path) -> Iterator[Running]:
    """Run the platform on a copy until the block ends; then the books are closed and nothing may be left."""
    shop = template.copy_to(folder / "shop")
    prepare(shop)
    death = Death(folder / "death")
    with Installation(shop.folder, environ=death.environ).up() as up:
        bearer = shop(
            "token", "create", "--principal", "tester", "--role", "predictor", "--enrol", "service"
        )["token"]
        with Asking(up, bearer, clients=1, pause_s=0.02) as asking:
            asking.more()
            made = Running(shop, up, death, asking, bearer)
            yield made
    assert_nothing_runs(shop)
    assert made.books.unlogged(asking.answered) == set()
    assert made.books.faults() == []
    made.books.proved()


def sampled(victim: str, name: str) -> int:
    return edges_of(f"{victim} {name}", EDGES[name], sample=1)[0]


@pytest.mark.crash
def test_control_killed_while_it_works_goes_on_after_its_restart_and_no_request_fails(
    released_template: Installation, tmp_path: Path
) -> None:
    with running(released_template, tmp_path) as it:
        for name in COMMANDS:
            assert it.kill("control", name, sampled("control", name))
        assert it.asking.broken == 0


@pytest.mark.crash
def test_gateway_supervisor_and_job_killed_while_control_works_are_no_end_of_the_work(
    released_template: Installation, tmp_path: Path
) -> None:
    with running(released_template, tmp_path) as it:
        assert it.kill("gateway-0", "release", sampled("gateway-0", "release"))
        broken, gateway = it.asking.broken, it.up.pid("gateway-0")
        assert it.kill("supervisor", "release", sampled("supervisor", "release"))
        assert it.asking.broken == broken
        assert it.up.pid("gateway-0") == gateway  # adopted
        assert it.up.ask(it.bearer).headers["taut-release"] == it.shop("release", "status", "late")["release"]
        with it.shop.started("train", "late") as command:
            until(lambda: len(jobs_of(it.shop)) >= 3, within_s=90)
            os.kill(jobs_of(it.shop)[-1], signal.SIGKILL)
            assert command.wait(90) == 10
        assert it.books.count("runs_runs", "state = 'failed'") == 1
        it.asking.more()
        assert it.asking.refused == []


@pytest.mark.crash
def test_a_supervisor_killed_while_a_job_runs_leaves_the_training_to_the_next(
    released_template: Installation, tmp_path: Path
) -> None:
    with running(released_template, tmp_path) as it:
        gateway = it.up.pid("gateway-0")
        with it.shop.started("train", "late") as command:
            until(lambda: len(jobs_of(it.shop)) >= 3, within_s=90)
            it.up.kill("supervisor")
            before = len(it.asking.answered)
            it.up.start()
            it.books.await_ends()
            assert command.wait(90) in (0, 7)
        assert len(it.asking.answered) > before
        assert (it.asking.refused, it.asking.broken) == ([], 0)
        assert it.up.pid("gateway-0") == gateway
        assert it.books.count("runs_runs", "state = 'done'") == 2
        assert it.books.count("registry_versions") == 2


@pytest.mark.crash
@pytest.mark.parametrize(
    ("victim", "name", "known", "edge"),
    [
        (victim, name, EDGES[whose], edge)
        for victim, name, whose in KILLS
        for edge in edges_of(f"all {victim} {name}", EDGES[whose], sample=1)
    ],
)
def test_a_process_killed_at_an_edge_of_control_costs_nothing_that_was_acknowledged(
    released_template: Installation, tmp_path: Path, victim: str, name: str, known: int, edge: int
) -> None:
    for at in from_edge(edge, known):
        with running(released_template, tmp_path / str(at)) as it:
            if not it.kill(victim, name, at):
                assert at > known
                break
