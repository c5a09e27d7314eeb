"""The judge of records: each way to serve without leave is found, and nothing else is."""

from __future__ import annotations

import pytest

from taut.fleet.admission.judge import Answered, Fact, Judge

FACTS = (
    Fact(kind="fleet.committed", subject="epoch:1", at_us=1_000_000),
    Fact(kind="fleet.provisioned", subject="spiffe://taut/gateway/a/1", at_us=1_500_000),
    Fact(kind="fleet.admitted", subject="spiffe://taut/gateway/a/1", at_us=2_000_000),
    Fact(kind="fleet.committed", subject="epoch:5", at_us=10_000_000),
    Fact(kind="fleet.quarantined", subject="spiffe://taut/gateway/a/1", at_us=20_000_000),
)


def answer(**more: object) -> Answered:
    fields = {"replica": "a", "incarnation": 1, "degraded": False, "epoch": 1, "at_us": 3_000_000, **more}
    return Answered(**fields)  # type: ignore[arg-type]


@pytest.fixture
def judge() -> Judge:
    return Judge("gateway", FACTS, ttl_s=4.5)


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({}, ""),
        ({"epoch": 5}, ""),
        ({"at_us": 14_400_000}, ""),
        ({"at_us": 14_600_000}, "epoch 5 had been committed"),
        ({"at_us": 14_600_000, "epoch": 4}, "epoch 5 had been committed"),
        ({"at_us": 14_600_000, "epoch": 7}, ""),
        ({"at_us": 24_400_000, "epoch": 5}, ""),
        ({"at_us": 24_600_000, "epoch": 5}, "it had ended 4.600 s before"),
        ({"at_us": 1_900_000}, "admitted 0.100 s later"),
        ({"incarnation": 2}, "never admitted"),
        ({"incarnation": 0}, "never admitted"),
        ({"replica": "b"}, "never admitted"),
    ],
)
def test_an_answer_without_leave_is_found(judge: Judge, more: dict[str, object], fault: str) -> None:
    found = judge.judge([answer(**more)])

    assert (found.guarded, found.unguarded, found.by_grace) == (int(not fault), int(bool(fault)), 0)
    assert fault in "".join(found.faults)


def test_what_grace_allowed_is_counted_apart(judge: Judge) -> None:
    found = judge.judge([answer(degraded=True), answer(), answer(degraded=True, incarnation=0)])

    assert (found.guarded, found.by_grace, found.unguarded) == (1, 2, 0)


def test_the_last_answer_under_an_epoch_that_is_over_is_measured(judge: Judge) -> None:
    found = judge.judge(
        [answer(at_us=9_000_000), answer(at_us=12_500_000), answer(at_us=13_000_000, epoch=5)]
    )

    assert found.last_old_s == 2.5
