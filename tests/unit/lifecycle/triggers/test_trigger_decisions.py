"""What is a reason to train anew, what keeps a run from beginning, and what is answered by it."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

import taut
from taut.lifecycle.triggers import Decision, Seen, Spent, decide
from taut.lifecycle.triggers.decide import fired, first_state, inside
from taut.project.manifest import RetrainingSpec, TriggerSpec

NOON = datetime.fromisoformat("2026-05-04T12:00:00Z")
AT_ONCE = taut.Retraining(settle="0s")
NEW = TriggerSpec(kind="new_data", dataset="flights", count=100)


class Model:
    """A model whose triggers are looked at again and again, as control does."""

    def __init__(self, *triggers: TriggerSpec, rules: RetrainingSpec = AT_ONCE) -> None:
        self.triggers, self.rules, self.now = triggers, rules, NOON
        self.seen = Seen(snapshots={"flights": 1}, now_code="code")
        self.state = first_state(triggers, self.seen, NOON)
        self.runs: list[tuple[str, ...]] = []

    def see(self, **news: object) -> None:
        self.seen = msgspec.structs.replace(self.seen, **news)

    def look(self, **later: float) -> Decision:
        self.now += timedelta(**later)
        found = decide(self.triggers, self.rules, self.state, self.seen, self.now)
        self.state = found.state
        if found.fire:
            self.runs.append(self.state.pending)
            self.state = fired(self.state, self.seen, self.now, story="story")
            self.see(added={}, learned=self.seen.snapshots, code=self.seen.now_code)
        return found

    def more_data(self, rows: int) -> None:
        self.see(added={"flights": rows}, snapshots={"flights": self.seen.snapshots["flights"] + 1})


def test_enough_new_rows_begin_one_run() -> None:
    model = Model(NEW)
    assert not model.look().fire
    model.more_data(99)
    assert not model.look().fire
    model.more_data(100)
    assert model.look().fire
    assert model.runs == [("new data: 100 rows of flights",)]
    assert not model.look(days=1).fire


def test_what_else_comes_is_waited_for_and_a_stream_of_news_does_not_starve_it() -> None:
    model = Model(NEW, taut.on_drift(), rules=taut.Retraining(settle="10m"))
    model.more_data(100)
    assert "waits for what else comes until 2026-05-04T12:10:00Z" in model.look().state.waits
    model.see(alarms={"drift": ("finding_1",)})
    for minute in range(1, 10):
        model.more_data(100 + minute)
        assert not model.look(minutes=1).fire
    assert model.look(minutes=1).fire
    assert model.runs == [("new data: 109 rows of flights", "drift: alert finding_1")]


def test_an_alert_is_answered_once_and_only_when_there_is_something_to_learn() -> None:
    model = Model(taut.on_drift())
    model.see(alarms={"drift": ("finding_1",)})
    waits = model.look().state.waits
    assert waits == "drift: alert finding_1; but there is nothing new to learn from since the last run"
    assert model.look(hours=1).state == model.state  # nothing is written while nothing changes
    model.more_data(10)
    assert model.look().fire
    model.more_data(10)
    assert not model.look(days=3).fire  # the alert is still open, and was answered
    model.see(alarms={"drift": ("finding_1", "finding_2")})
    assert model.look().fire
    assert model.state.acted == ("finding_1", "finding_2")


def test_times_that_passed_while_nobody_looked_count_once_and_before_the_declaration_never() -> None:
    model = Model(taut.cron("0 3 * * *"))
    model.more_data(1)
    assert not model.look(hours=1).fire  # three o'clock was before
    assert model.look(days=9).fire
    assert model.runs == [("schedule: 2026-05-13T03:00Z",)]
    model.more_data(1)
    assert not model.look(hours=1).fire


def test_a_time_with_nothing_new_is_left_out_and_not_made_up_for() -> None:
    model = Model(taut.cron("0 3 * * *"), rules=taut.Retraining(settle="10m"))
    assert "nothing new to learn" in model.look(days=1).state.waits
    model.more_data(5)
    assert not model.look(hours=1).fire
    assert model.look(hours=23).fire  # a time needs no settling


def test_all_of_looks_at_the_others_when_it_is_time() -> None:
    model = Model(taut.all_of(taut.cron("0 3 * * *"), taut.any_of(NEW, taut.on_quality())))
    model.more_data(99)
    assert not model.look(days=1).fire
    model.more_data(100)
    assert not model.look(hours=1).fire  # enough, and not the time
    assert model.look(days=1).fire


def test_feedback_counts_since_the_last_run() -> None:
    model = Model(taut.on_feedback(50))
    model.more_data(1)
    model.see(outcomes=49)
    assert not model.look().fire
    model.see(outcomes=50)
    assert model.look().fire


def test_hours_budgets_and_work_under_way_keep_a_reason_waiting_and_lose_none() -> None:
    rules = taut.Retraining(settle="0s", window="22:00-06:00", runs_per_day=2, cpu_hours_per_day=1)
    model = Model(NEW, rules=rules)
    model.more_data(100)
    assert model.look().state.waits == "waits for its hours, 22:00-06:00 UTC"
    model.see(spent=Spent(runs=2))
    assert "its 2 runs of 24 hours" in model.look(hours=10).state.waits
    model.see(spent=Spent(cpu_s=3600))
    assert "hours of processor time" in model.look().state.waits
    model.see(spent=Spent(), busy="run_1 is under way")
    assert model.look().state.waits == "run_1 is under way"
    model.see(busy="", refused="builder may not train")
    assert model.look().state.waits == "builder may not train"
    model.see(refused="")
    assert model.look().fire


def test_what_a_person_trained_meanwhile_is_no_reason_any_more() -> None:
    model = Model(NEW, rules=taut.Retraining(settle="10m"))
    model.more_data(100)
    assert not model.look().fire
    model.see(added={}, learned=model.seen.snapshots, code="code")
    assert not model.look(minutes=11).fire
    assert model.state.pending == ()


def test_other_code_is_something_new_to_learn_from() -> None:
    model = Model(taut.cron("0 3 * * *"))
    model.see(now_code="better code")
    assert model.look(days=1).fire


def test_a_pause_holds_whatever_stands_and_leaves_out_times() -> None:
    model = Model(NEW, taut.cron("0 3 * * *"))
    model.more_data(100)
    model.state = msgspec.structs.replace(model.state, paused="by ann: audit")
    assert model.look(days=1).state.waits == "paused by ann: audit"
    model.state = msgspec.structs.replace(model.state, paused="")
    assert model.look().fire
    assert model.runs == [("new data: 100 rows of flights",)]


def test_hours_may_go_past_midnight_and_are_those_of_a_zone() -> None:
    assert inside("12:00-13:00", "UTC", NOON)
    assert not inside("12:30-13:00", "UTC", NOON)
    assert inside("14:00-14:30", "Europe/Zurich", NOON)
    assert inside("22:00-12:01", "UTC", NOON)
