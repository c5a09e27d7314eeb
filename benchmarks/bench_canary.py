"""Canaries on a running platform: how many requests until a harmful one is over, how many healthy ones are rolled back.

`taut up` with two gateways on a small project whose endpoints all serve one model. The second version of it fails for what the first
can answer: callers ask that in 1% of their requests, and in 0.5% what neither can, so that 0.5% of the live version's answers are errors
and 1.5% of the canary's. Each request is of another data subject. Every harmful canary is waited for to its end, since those that
are left take the longest; the healthy ones are the live version beside itself, and take over when their step is over.

Beside them stands the simulation of the same settings: the product's own division of callers, counters and judging, a look
each second, without a platform around them.
"""

from __future__ import annotations

import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks.bench_survival import Project
from benchmarks.canary_load import BOTH_FAIL, GOOD, ONE_FAILS
from taut.serving.trials import unit_of

if TYPE_CHECKING:
    from benchmarks.report import Report
    from taut.entrypoints.client import Client

ENDPOINTS, ROUNDS, RATE = 6, 3, 200.0
HEALTHY, HEALTHY_RATE, STEP = 50, 40.0, "60s"
SIMULATED: Final = 200
WEIGHT, BASE, MORE = 0.1, 0.005, 0.01
PRINCIPAL: Final = "bench"  # of whom `Project.token` is
LONGEST_S: Final = 900.0
BODIES: Final = [
    json.dumps({"instances": [{"distance_km": far}]}) for far in (12.5, 1e25, 1e15)
]  # its square and its cube are finite, neither is, the cube is not
PROJECT: Final = '''"""One model behind many endpoints: where a power of the distance is beyond what a float holds, it has no answer."""

import taut

trips = taut.Dataset(
    "trips",
    source=taut.files("data/trips.csv"),
    contract=taut.Contract(
        [
            taut.column("trip_id", "int", unique=True),
            taut.column("left_at", "datetime"),
            taut.column("distance_km", "float"),
            taut.column("minutes", "float"),
        ]
    ),
    entity="trip_id",
    event_time="left_at",
)


@taut.model(
    "far",
    dataset=trips,
    request=["distance_km"],
    label="minutes",
    split=taut.by_time(test="2d", gap="1h"),
    params={"degree": 2},
)
def train(ctx):
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    model = make_pipeline(PolynomialFeatures(int(ctx.params["degree"])), LinearRegression())
    model.fit(ctx.train.select("distance_km"), ctx.train["minutes"])
    return taut.Trained(model, inputs=["distance_km"], output="value")


for at in range(ENDPOINTS):
    taut.Endpoint(
        f"far-{at}", model=train, quota_per_s=1e6,
        release=taut.Canary(steps=(WEIGHT,), every="EVERY", least=1, guardrails=[taut.errors()]),
    )
'''


def run(report: Report) -> None:
    simulated = sorted(_simulated(seed) for seed in range(SIMULATED))
    with tempfile.TemporaryDirectory(prefix="taut-bench-") as folder:
        made = _made(Path(folder))
        with made.up() as (_, port), _client(made) as client:
            bearer = made.token()
            _declare(made, ENDPOINTS, every="1h")
            _live(client, ENDPOINTS)
            _harmful(report, Path(folder), (port, bearer), simulated)
            _declare(made, HEALTHY, every=STEP)
            _live(client, HEALTHY, since=ENDPOINTS)
            _healthy(report, Path(folder), client, (port, bearer))


def _made(work: Path) -> Project:
    """Train the two versions: the second, which takes the cube too, fails for more."""
    made, dice = Project(work, way=()), random.Random(1)
    rows = ["trip_id,left_at,distance_km,minutes"]
    for at in range(2400):
        far = dice.uniform(0.1, 10.0)
        rows.append(
            f"{at},2026-01-{1 + at // 240:02d}T{at // 10 % 24:02d}:{at % 10 * 6:02d}:00Z,{far:.3f},{3 * far + dice.gauss(0, 1):.3f}"
        )
    (made.folder / "data" / "trips.csv").write_text("\n".join(rows) + "\n")
    _declare(made, 1, every="1h")
    for words in ("data ingest trips", "train far", "train far --param degree=3"):  # fmt: skip
        made.say(*words.split())
    return made


def _declare(made: Project, endpoints: int, *, every: str) -> None:
    text = PROJECT.replace("ENDPOINTS", str(endpoints)).replace("EVERY", every)
    (made.folder / "project.py").write_text(text.replace("WEIGHT", str(WEIGHT)))
    made.say("apply")


@contextmanager
def _client(made: Project) -> Iterator[Client]:
    from taut.entrypoints.client import connect

    with connect(made.folder / ".taut") as client:
        yield client


def _live(client: Client, endpoints: int, *, since: int = 0) -> None:
    for at in range(since, endpoints):
        client.call("release.start", {"endpoint": f"far-{at}", "version": "1", "strategy": "direct"})


class Answer(NamedTuple):
    at_s: float
    endpoint: int
    status: int
    release: str
    asked: int
    subject: str


@contextmanager
def _asking(work: Path, place: tuple[int, str], endpoints: int, rate: float) -> Iterator[Path]:
    """Ask all endpoints until the block ends; yield the file in which the answers are afterwards."""
    said = work / f"answers-{endpoints}"
    given: dict[str, Any] = {
        "port": place[0], "bearer": place[1], "paths": [f"/v1/predict/far-{at}" for at in range(endpoints)],
        "rates": [rate] * endpoints, "bodies": BODIES, "shares": [BASE, MORE], "seed": endpoints, "said": str(said),
    }  # fmt: skip
    with subprocess.Popen([sys.executable, "-m", "benchmarks.canary_load", json.dumps(given)]) as process:
        try:
            yield said
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    assert process.returncode == 0, "the callers broke"


def _answers(said: Path) -> list[Answer]:
    found = []
    for line in said.read_text().splitlines():
        at_s, endpoint, status, release, asked, subject = line.split()
        found.append(Answer(float(at_s), int(endpoint), int(status), release, int(asked), subject))
    return found


# harmful ones


class Over(NamedTuple):
    """A release that ended. ended_s: by control's clock, which is this machine's."""

    endpoint: int
    release: str
    state: str
    ended_s: float


class _Slot(threading.Thread):
    """Releases the harmful version to one endpoint again and again, each once the one before is over."""

    def __init__(self, home: Path, at: int) -> None:
        super().__init__(daemon=True)
        self._home, self._at = home, at
        self.over: list[Over] = []
        self.trouble: BaseException | None = None

    def run(self) -> None:
        from taut.entrypoints.client import connect

        try:
            with connect(self._home) as client:
                for _ in range(ROUNDS):
                    self.over.append(_one_canary(client, self._at))
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for this thread
            self.trouble = error


def _one_canary(client: Client, at: int) -> Over:
    began = time.monotonic()
    found = client.call("release.start", {"endpoint": f"far-{at}", "version": "2", "strategy": "canary"})
    while True:
        assert time.monotonic() - began < LONGEST_S, f"far-{at}: still under way after {LONGEST_S:g} s"
        time.sleep(1.0)
        now = client.call("release.status", {"release": found["release"]})
        if now["state"] != "started":
            return Over(at, now["release"], now["state"], datetime.fromisoformat(now["ended_at"]).timestamp())


def _harmful(report: Report, work: Path, place: tuple[int, str], simulated: list[int]) -> None:
    slots = [_Slot(work / "shop" / ".taut", at) for at in range(ENDPOINTS)]
    with _asking(work, place, ENDPOINTS, RATE) as said:
        for slot in slots:
            slot.start()
        for slot in slots:
            slot.join()
        time.sleep(2.0)  # whatever the canary still answers is to be seen
    for slot in slots:
        if slot.trouble is not None:
            raise slot.trouble
    answers = _answers(said)
    over = [one for slot in slots for one in slot.over]
    _tell_harmful(report, answers, over, simulated)


def _tell_harmful(report: Report, answers: list[Answer], over: list[Over], simulated: list[int]) -> None:
    by_endpoint: dict[int, list[Answer]] = {}
    for answer in answers:
        by_endpoint.setdefault(answer.endpoint, []).append(answer)
    until, again, late_s = [], [], []
    for one in over:
        own = [answer.at_s for answer in by_endpoint[one.endpoint] if answer.release == one.release]
        assert own, f"{one.release} answered nobody"
        late_s.append(max(0.0, max(own) - one.ended_s))
        if one.state == "aborted":
            since = [answer for answer in by_endpoint[one.endpoint] if answer.at_s >= min(own)]
            until.append(sum(answer.at_s <= one.ended_s for answer in since))
            again.append(_again(since, one.release))
    _tell_until(report, until, again, simulated, of=len(over))
    report.figure("from the verdict to the last answer of a canary", late_s, "s", note="two gateways, by this machine's clock")  # fmt: skip
    report.figure("the longest of these", [max(late_s)], "s", wanted="≤ 1")
    _tell_lost(report, "harmful canaries: answers lost", answers)


def _tell_until(report: Report, until: list[int], again: list[int], simulated: list[int], *, of: int) -> None:
    middle, wanted = statistics.median(until), statistics.median(simulated)
    report.figure(
        "harmful canaries rolled back", [100 * len(until) / of], "%", wanted="≥ 100",
        note=f"{of}, on {ENDPOINTS} endpoints at once; {RATE:g} requests a second, {BASE:.1%} fail, {BASE + MORE:.1%} of the canary's, weight {WEIGHT:.0%}",
    )  # fmt: skip
    report.figure("requests until rolled back, both versions' together", until, "")
    report.figure(
        "their median to the simulation's", [middle / wanted], "×", wanted="≤ 1.15",
        note=f"{wanted:,.0f} is the median of {len(simulated)} simulated ones; that of {len(until)} live ones is known to ± {_error(until):.0%}",
    )  # fmt: skip
    report.figure(
        "requests until rolled back, to how many the same requests take without a platform",
        [one / other for one, other in zip(until, again, strict=True)], "×", wanted="≤ 1.15",
        note="run by run: what the platform itself costs, a beat of the gateways and a look of control's",
    )  # fmt: skip


def _error(values: list[int]) -> float:
    """Return the standard error of the median by resampling, as a part of it."""
    dice = random.Random(1)
    medians = [statistics.median(dice.choices(values, k=len(values))) for _ in range(400)]
    return statistics.pstdev(medians) / statistics.mean(medians)


def _tell_lost(report: Report, name: str, answers: list[Answer]) -> None:
    """Count what should have been answered with 200 and was not: no answer at all, or an error that nobody planted."""
    lost = sum(answer.status != 200 for answer in answers if answer.asked == GOOD)
    lost += sum(answer.status == 0 for answer in answers if answer.asked != GOOD)
    report.figure(name, [lost], f"of {len(answers):,}", wanted="≤ 0")


# healthy ones


def _healthy(report: Report, work: Path, client: Client, place: tuple[int, str]) -> None:
    with _asking(work, place, HEALTHY, HEALTHY_RATE) as said:
        begun = [
            client.call("release.start", {"endpoint": f"far-{at}", "version": "1", "strategy": "canary"})["release"]
            for at in range(HEALTHY)
        ]  # fmt: skip
        began = time.monotonic()
        states: dict[str, str] = {}
        while len(states) < HEALTHY:
            assert time.monotonic() - began < LONGEST_S, "healthy canaries are still under way"
            time.sleep(1.0)
            for release in begun:
                if release not in states:
                    now = client.call("release.status", {"release": release})
                    if now["state"] != "started" or now["held"]:
                        states[release] = "held" if now["state"] == "started" else now["state"]
    answers = _answers(said)
    ended, held = [sum(state == what for state in states.values()) for what in ("aborted", "held")]
    report.figure(
        "healthy canaries rolled back", [ended], f"of {HEALTHY}", wanted="≤ 4",
        note=f"the live version beside itself, {len(answers) / HEALTHY:,.0f} requests each, {BASE:.1%} fail; {held} held for a person",
    )  # fmt: skip
    _tell_lost(report, "healthy canaries: answers lost", answers)


# without a platform


class Judge:
    """The product's own division of callers, counters and judging, with a look each second and nothing around them."""

    def __init__(self, release: str) -> None:
        from taut.lifecycle.release.canary import CanaryPlan, begun
        from taut.serving.trials import Side, Split, Trial

        self._plan: Final = CanaryPlan(steps=(WEIGHT,), every_s=3600.0, least=1, guardrails=("errors",))
        self._split: Final = Split(release, (Side(0, 1 - WEIGHT, None, None), Side(1, WEIGHT, None, None)))
        self._trial: Final = Trial(release, 0)
        self._split.count_in([self._trial])
        self._state = begun(self._plan, 0)

    def take(self, unit: str, at_s: float, fails: Callable[[bool], bool]) -> None:
        arm = self._split.draw(unit)
        if fails(not arm.live):
            arm.fail("bad_answer", int(at_s * 1e6))

    def over(self, now_s: float) -> bool:
        """Look, and tell whether the canary is to be rolled back."""
        from taut.lifecycle.release.canary import Report as Told
        from taut.lifecycle.release.canary import advance

        told = self._trial.reading()
        report = Told(process="g", stage=0, seen=told.seen, failed=told.failed, fatal=told.fatal)
        move = advance(self._plan, self._state, (report,), now_us=int(now_s * 1e6))
        self._state = move.state
        return move.kind == "roll_back"


def _simulated(seed: int) -> int:
    """Return how many requests a canary takes that asks are drawn for as `canary_load` draws them."""
    dice, judge = random.Random(seed), Judge(f"s{seed}")
    asked, now_s, due_s = 0, 0, 0.0

    def fails(canary: bool) -> bool:
        return dice.random() < BASE + (MORE if canary else 0.0)

    while not judge.over(now_s) and now_s < LONGEST_S:
        now_s += 1
        while due_s < now_s:
            asked += 1
            judge.take(f"{seed}-{asked}", due_s, fails)
            due_s += dice.expovariate(RATE)
    return asked


_FAILS: Final[dict[int, Callable[[bool], bool]]] = {
    GOOD: lambda _canary: False, BOTH_FAIL: lambda _canary: True, ONE_FAILS: lambda canary: canary,
}  # fmt: skip


def _again(answers: list[Answer], release: str) -> int:
    """Return how many of a live canary's own requests it would have taken: those that came from its first answer on."""
    judge, look_s = Judge(release), answers[0].at_s + 1.0
    for count, one in enumerate(answers):
        while one.at_s >= look_s:
            if judge.over(look_s):
                return count
            look_s += 1.0
        judge.take(unit_of(PRINCIPAL, one.subject), one.at_s, _FAILS[one.asked])
    return len(answers)
