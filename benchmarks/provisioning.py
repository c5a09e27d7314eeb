"""How long replicas take from their start to their lease: read from what the supervisor wrote and from the ledger, and simulated from it."""

from __future__ import annotations

import json
import random
import statistics
import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.bench_admission import Fleet, opened_fleet

_RENEWALS: Final = 200
_SEED: Final = 7


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One replica's way. All by the machine's clock, seconds: its intent on the scale log, its process's start, its lease."""

    replica: str
    intended_s: float
    began_s: float
    admitted_s: float

    @property
    def took_s(self) -> float:
        return self.admitted_s - self.began_s


def starts(home: Path, leaves: Iterable[dict[str, Any]]) -> list[Start]:
    """Return those that were admitted, in the order of their leases. leaves: of the ledger, of kinds `fleet.…`."""
    began: dict[str, list[float]] = {}
    for line in (home / "log" / "supervisor.log").read_text().splitlines():
        said = json.loads(line)
        if said["event"] == "started":
            at_s = datetime.fromisoformat(said["time"]).timestamp()
            began.setdefault(said["name"], []).append(at_s)
    told_s = {(leaf["kind"], leaf["subject"]): leaf["at_us"] / 1e6 for leaf in leaves}
    found = []
    for leaf in leaves:
        if leaf["kind"] == "fleet.admitted" and "/gateway/" in leaf["subject"]:
            name, admitted_s = leaf["subject"].split("/")[-2], leaf["at_us"] / 1e6
            before = began[name][: bisect_right(began[name], admitted_s)]
            scaled_s = told_s.get(("fleet.scaled", leaf["body"]["scale_id"]), admitted_s)
            found.append(Start(replica=name, intended_s=scaled_s, began_s=before[-1], admitted_s=admitted_s))
    return sorted(found, key=lambda one: one.admitted_s)


def p99(values: Sequence[float]) -> float:
    """Return the 99th percentile, the greatest of fewer than 100."""
    return statistics.quantiles(values, n=100)[-1] if len(values) >= 100 else max(values)


def grown(own_s: Sequence[float], *, before: int, arrivals_s: Sequence[float]) -> list[float]:
    """Return how long each of further replicas takes from its start to its lease, in seconds, on machines that all have room.

    own_s: what a replica was measured to take alone, of which one is drawn for each: nothing of it is slower where others start, since
    each has processors of its own. before: how many there are. arrivals_s: when each is started, ascending. What all share is
    admission: each takes its steps at the real one, signatures and writes on stable storage included, one after the other in the
    order in which they come, for as long as those really took, which is longer by what the renewals of all take of it.
    """
    dice, took = random.Random(_SEED), []
    with opened_fleet() as fleet:
        fleet.grow(before)
        due = sorted((at_s + dice.choice(own_s), at_s) for at_s in arrivals_s)
        renewal_s, free_s = _renewal_s(fleet), 0.0
        for n, (ready_s, at_s) in enumerate(due, start=before + 1):
            began_s = time.perf_counter()
            fleet.grow(n, listed=False)
            worked_s = time.perf_counter() - began_s
            free_s = max(free_s, ready_s) + worked_s / max(0.01, 1 - n * renewal_s)
            took.append(free_s - at_s)
    return took


def _renewal_s(fleet: Fleet) -> float:
    """Return what a renewal takes of admission, the replica's end included; each has one a second."""
    began_s = time.perf_counter()
    for _ in range(_RENEWALS):
        fleet.talk(fleet.workers[0])
    return (time.perf_counter() - began_s) / _RENEWALS
