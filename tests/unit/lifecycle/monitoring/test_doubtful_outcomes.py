"""Which outcomes count: a flood, a contradiction and an echo do not."""

from __future__ import annotations

from taut.lifecycle.monitoring import weigh
from taut.lifecycle.monitoring.outcomes import Outcome


def told(who: str, answers: range, *, wrong: int = 0, label: bool = True) -> list[Outcome]:
    """Outcomes about answers, every `wrong`-th of which was wrong."""
    return [
        Outcome(
            request_id=f"req_{at}", row=0, endpoint="delay", version="delay@1", label=label, principal=who, at_us=at,
            wrong=bool(wrong) and at % wrong == 0, cell=0, truth=int(label),
        )
        for at in answers
    ]  # fmt: skip


def test_one_who_tells_of_everything_counts_whole_where_no_bound_is_declared() -> None:
    assert weigh(told("app", range(1000), wrong=4), share=1.0, error=0.25).counted == 1000


def test_a_flood_of_one_principal_counts_for_no_more_than_its_share() -> None:
    found = weigh(
        [*told("flood", range(9000), wrong=4), *told("app", range(9000, 9100), wrong=4)],
        share=0.5,
        error=0.25,
    )
    assert (found.counted, found.flooded, found.flooding) == (200, 8900, ("flood",))


def test_one_alone_cannot_be_half_of_all() -> None:
    assert weigh(told("flood", range(1000), wrong=4), share=0.5, error=0.25).counted == 0


def test_labels_that_contradict_one_another_count_for_nobody_and_a_correction_counts_once() -> None:
    both = [*told("ann", range(10), label=True), *told("bob", range(5), label=False)]
    found = weigh(both, share=1.0, error=0.2)
    assert (found.counted, found.contested, found.doubted) == (5, 5, 5)
    corrected = [*told("ann", range(10), label=True), *told("ann", range(10), label=False)]
    assert weigh(corrected, share=1.0, error=0.2).counted == 10


def test_labels_made_from_own_answers_are_an_echo_once_chance_cannot_explain_them() -> None:
    echo = told("loop", range(100))
    found = weigh([*echo, *told("people", range(100, 200), wrong=5)], share=1.0, error=0.2)
    assert (found.counted, found.echoed, found.echoes) == (100, 100, ("loop",))
    assert weigh(echo[:20], share=1.0, error=0.2).counted == 20  # 0.8**20 is no rare thing
    assert weigh(echo, share=1.0, error=None).counted == 100  # nobody knows how often it is wrong
