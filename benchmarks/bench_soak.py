"""Whether a gateway's memory stays flat: one million requests in a whole run, ten million when asked for by name.

One gateway, 16 connections; 50,000 different rows drawn at random, one in 32 of them wrong (no JSON, wrong types, shapes,
not a number); a result cache too small for them, so that it always evicts; the prediction log at its usual size. After each
piece, callers without rights have a second each: a token of another issuer, another one each time, and an endpoint that is
not there, by another name each time. Memory is read once a second while requests come. Judged is RSS without the
pages of the log's mapped segments, which fill up to 32 MiB and are handed back again and again; what is PSS, and how much of
it all is anonymous, is told beside it. (PSS alone depends on who else maps the same libraries.) Each mark is the median of
a twentieth of the run either side of it.

Closed segments of the log are removed as soon as they are closed, since nobody seals them here; how fast the log grows is
one of the figures.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks import wrk
from benchmarks.planes import INFER, WIDTH, Server, gateway, plane_of, row, train, v2

if TYPE_CHECKING:
    from benchmarks.report import Report

REQUESTS, REQUESTS_ALONE, SEGMENT_S, BODIES = 1_000_000, 10_000_000, 15, 50_000
STRANGERS_S, WRONG = 1, 32
CACHE_BYTES: Final = 4 * 2**20
MARKS: Final = (0.1, 0.5, 1.0)


class Reading(msgspec.Struct, frozen=True):
    """Memory at one moment, in MiB. own: RSS that is no page of the prediction log. anonymous: of that, what no file backs."""

    at_s: float
    rss: float
    pss: float
    own: float
    anonymous: float


class Watch:
    """Reads a process's memory and removes closed segments of its log, once a second, until the block ends."""

    def __init__(self, pid: int, log: Path) -> None:
        self._pid: Final = pid
        self._log: Final = log
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run)
        self.readings: Final[list[Reading]] = []
        self.logged_bytes = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            self.readings.append(_reading(self._pid))
            for path in self._log.glob("*.closed"):
                self.logged_bytes += path.stat().st_size
                path.unlink()


def run(report: Report) -> None:
    wanted = REQUESTS_ALONE if report.alone else REQUESTS
    if not wrk.installed():
        report.missing("memory of a gateway under load", wrk.NO_WRK)
        return
    from taut.serving.snapshot import CacheConfig

    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        work = Path(folder)
        plane = plane_of(work / "home", train(), cache=CacheConfig(ttl_s=3600, max_bytes=CACHE_BYTES))
        bodies = wrk.write_bodies(work / "bodies", _bodies())
        with gateway(plane.home) as server, Watch(server.pid, plane.home / "log" / "predictions") as watch:
            load = Load(server, bodies, bearer=plane.token(ttl_s=6 * 3600))
            load.until(wanted)
    tell(report, watch, load.ends, refused=load.refused, strangers=load.strangers)


class Load:
    """Requests in pieces. ends: when each piece ended, and how many requests there were by then; refused: how many of them were."""

    def __init__(self, server: Server, bodies: Path, *, bearer: str) -> None:
        self._server: Final = server
        self._bodies: Final = bodies
        self._bearer: Final = bearer
        self.ends: Final[list[tuple[float, int]]] = [(time.monotonic(), 0)]
        self.refused = 0
        self.strangers = 0

    def until(self, wanted: int) -> None:
        usual = self._server.cell(INFER, self._bodies, many=True, bearer=self._bearer)
        asked = 0
        while asked < wanted:
            found = usual.measure(seconds=SEGMENT_S, may_fail=True)
            share = found.failed / found.requests
            assert not found.unanswered, f"{found.unanswered} requests were not answered"
            assert 0.5 < share * WRONG < 2, f"{share:.1%} were refused, where one in {WRONG} is wrong"
            self.refused += found.failed
            asked += found.requests + self._strangers()
            self.ends.append((time.monotonic(), asked))

    def _strangers(self) -> int:
        """Have a second each of a forged token and of an unknown endpoint, by names that were not heard before."""
        header, claims, signature = self._bearer.split(".")
        number = f"{len(self.ends):06}"
        forged = self._server.cell(
            INFER, self._bodies, many=True, bearer=f"{header}.{claims}.{signature[:-6]}{number}"
        )
        unknown = self._server.cell(f"{INFER}-{number}", self._bodies, many=True, bearer=self._bearer)
        asked = 0
        for cell in (forged, unknown):
            found = cell.measure(seconds=STRANGERS_S, may_fail=True)
            assert not found.unanswered, f"{found.unanswered} requests were not answered"
            assert found.failed == found.requests, f"{found.requests - found.failed} strangers were let in"
            asked += found.requests
        self.refused += asked
        self.strangers += asked
        return asked


def tell(
    report: Report, watch: Watch, ends: list[tuple[float, int]], *, refused: int, strangers: int
) -> None:
    began_s, (ended_s, asked) = ends[0][0], ends[-1]
    marks = {mark: _at(watch.readings, ends, mark * asked, asked) for mark in MARKS}
    said = "; ".join(
        f"at {mark:.0%}: RSS {found.rss:.0f} MiB, without the log {found.own:.1f}, anonymous {found.anonymous:.1f}, PSS {found.pss:.0f}"
        for mark, found in marks.items()
    )
    drift = max(abs(marks[mark].own / marks[MARKS[0]].own - 1) for mark in MARKS[1:]) * 100
    report.figure(
        f"memory of a gateway over {asked:,} requests: drift of RSS without the log, from a tenth on", [drift], "%",
        wanted="≤ 5 %", note=f"{refused:,} of them refused, {strangers:,} of these strangers; {said}",
    )  # fmt: skip
    whole = max(abs(marks[mark].rss / marks[MARKS[0]].rss - 1) for mark in MARKS[1:]) * 100
    report.figure(
        "the same, RSS with the log's mapped pages", [whole], "%",
        note="up to 32 MiB of a segment are mapped while it fills, and none of it after it is closed",
    )  # fmt: skip
    report.figure(
        "growth of the prediction log", [watch.logged_bytes / asked], "bytes a request",
        note=f"a record of {WIDTH} values; {watch.logged_bytes / 2**20:,.0f} MiB in {ended_s - began_s:,.0f} s, removed meanwhile",
    )  # fmt: skip


def _at(readings: list[Reading], ends: list[tuple[float, int]], mark: float, asked: int) -> Reading:
    """Return the medians around a mark, in requests: of the tenth of the run that has it in its middle, or ends there."""
    low, high = _when(ends, max(0.0, mark - asked * 0.05)), _when(ends, min(asked, mark + asked * 0.05))
    near = [one for one in readings if low <= one.at_s <= high]
    assert near, "a mark without a reading: ask for more requests"
    return Reading(
        low,
        *(
            statistics.median(getattr(one, name) for one in near)
            for name in ("rss", "pss", "own", "anonymous")
        ),
    )


def _when(ends: list[tuple[float, int]], mark: float) -> float:
    """Return when so many requests had been asked, evenly between the ends of pieces."""
    for (from_s, before), (to_s, after) in itertools.pairwise(ends):
        if mark <= after:
            return from_s + (to_s - from_s) * (mark - before) / max(1, after - before)
    return ends[-1][0]


def _reading(pid: int) -> Reading:
    sums = dict.fromkeys(("Rss:", "Pss:", "Anonymous:", "log"), 0)
    of_log = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        head, _, rest = line.partition(" ")
        if head in sums:
            size = int(rest.split()[0])
            sums[head] += size
            sums["log"] += size if of_log and head == "Rss:" else 0
        elif "-" in head and not head.endswith(":"):
            of_log = "/log/predictions/" in rest
    rss, pss, anonymous, log = (size / 1024 for size in sums.values())
    return Reading(time.monotonic(), rss, pss, rss - log, anonymous)


def _bodies() -> list[bytes]:
    dice = random.Random(3)
    usual = row()

    def one() -> dict[str, Any]:
        return v2([round(value * dice.uniform(0.5, 1.5), 5) for value in usual], 1)

    def wrong() -> bytes:
        said = one()
        found = dice.randrange(4)
        if found == 0:
            return json.dumps(said).encode()[: dice.randrange(1, 60)]
        tensor = said["inputs"][0]
        if found == 1:
            tensor["data"] = ["x" * dice.randrange(1, 400)] * WIDTH
        elif found == 2:
            tensor["shape"] = [dice.randrange(2, 1000), WIDTH]
        else:
            tensor["data"] = [float("nan")] * WIDTH
        return json.dumps(said).encode()

    return [wrong() if dice.randrange(WRONG) == 0 else json.dumps(one()).encode() for _ in range(BODIES)]
