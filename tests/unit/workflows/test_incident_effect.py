"""What an incident did to callers is counted from what they were answered, and from nothing else in the prediction log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from taut.core.times import from_us
from taut.serving.predictions import RecordHead
from taut.serving.predictions.record import SHADOWED, TAKEN, encode_head, encode_record
from taut.workflows.incidents.effect import effect_at


def rooms_with(*records: tuple[str, str, int]) -> Any:
    """Return rooms whose prediction log has records of (version, caller, status) at `late`."""
    payloads = []
    for number, (version, who, status) in enumerate(records):
        head = encode_head(RecordHead(endpoint="late", version=version, release="r", epoch=1, columns=()))
        payloads.append(encode_record(f"req_{number:026d}", 1000 + number, head, who, "", status, 1))
    segment = SimpleNamespace(started_us=0)
    log = SimpleNamespace(segments=lambda: [segment], written_us=lambda _: 2**62, payloads=lambda _: payloads)
    return SimpleNamespace(predictions=log)


def test_what_a_shadow_said_and_what_callers_told_is_no_answer() -> None:
    rooms = rooms_with(
        ("late@1", "ann", 200), ("late@1", "bob", 503), ("late@2", "ann", SHADOWED), ("late@1", "eve", TAKEN)
    )  # fmt: skip
    found = effect_at(rooms, "late", from_us(0), from_us(10_000))

    assert (found.answered, found.failed, found.callers, found.harmed) == (1, 1, 2, 1)
    assert found.versions == ("late@1",)
