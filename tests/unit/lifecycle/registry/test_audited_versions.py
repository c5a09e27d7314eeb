"""The model gate asks for known vulnerabilities where somebody mirrors them, and rejects where nobody could look."""

from __future__ import annotations

from typing import Any

import pytest
from registry_room import House, candidate, gate_inputs

from taut.core.errors import Unavailable
from taut.core.evidence import Check, Decision, Outcome


def could_not_look() -> Check:
    raise Unavailable("the advisories at /srv/osv cannot be read: mirror them again")


@pytest.mark.parametrize(
    ("audit", "decision", "reason"),
    [
        (None, Decision.ADMIT, ""),
        (lambda: Check(name="dependencies", outcome=Outcome.PASSED), Decision.ADMIT, ""),
        (
            lambda: Check(
                name="dependencies", outcome=Outcome.FAILED, message="shop-tools 2.0 has PYSEC-2026-1"
            ),
            Decision.REJECT,
            "dependencies: shop-tools 2.0 has PYSEC-2026-1",
        ),
        (could_not_look, Decision.REJECT, "dependencies: errored"),
    ],
    ids=["nobody mirrors", "clean", "vulnerable", "could not look"],
)
def test_a_version_whose_packages_are_vulnerable_or_unknown_is_rejected(
    house: House, model: Any, audit: Any, decision: Decision, reason: str
) -> None:
    info = house.registry.register(candidate(house, model))

    verdict = house.registry.judge(info.ref, gate_inputs(model, audit=audit), actor="system").verdict

    assert verdict is not None
    assert (verdict.decision, reason in " ".join(verdict.reasons)) == (decision, True)
