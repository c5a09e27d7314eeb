"""When releases of an endpoint have to wait, and by whose word one starts all the same."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from taut.core.evidence import Check, Outcome
from taut.core.times import to_us
from taut.project.manifest import Manifest
from taut.project.windows import window
from taut.workflows.rooms import Rooms


def freezes(rooms: Rooms, endpoint: str) -> Iterator[str]:
    """Yield each reason, in words, why releases of an endpoint have to wait now. What answers already may always be returned to."""
    for name, _, until in windows(rooms.plans.current(), endpoint, rooms.clock.now()):
        yield f"releases wait by freeze {name} until {until:%Y-%m-%d %H:%M} UTC"
    yield from _spent_budgets(rooms, endpoint)


def windows(
    manifest: Manifest | None, endpoint: str, now: datetime
) -> Iterator[tuple[str, datetime, datetime]]:
    """Yield the declared times in which releases of an endpoint wait now: of which name, since when and until when."""
    for spec in () if manifest is None else manifest.freezes:
        found = window(spec, now) if not spec.endpoints or endpoint in spec.endpoints else None
        if found is not None:
            yield f"{spec.name} ({spec.reason})" if spec.reason else spec.name, *found


def frozen_since(manifest: Manifest | None, endpoint: str, started_us: int, now: datetime) -> str:
    """Return until when what was started may go no further, by a declared time that began after it. What was started in it, despite it, goes on."""
    for name, since, until in windows(manifest, endpoint, now):
        if started_us < to_us(since):
            return f"freeze {name} until {until:%Y-%m-%d %H:%M} UTC"
    return ""


def unfrozen(rooms: Rooms, endpoint: str, despite: str) -> Check:
    """Check that nothing freezes a release, or that a person said why it is to start despite that; what did is then `observed`."""
    found = "; ".join(freezes(rooms, endpoint))
    if not found:
        return Check(name="unfrozen", outcome=Outcome.PASSED, message="nothing freezes releases")
    if despite:
        said = f"{found}; all the same: {despite}"
        return Check(name="unfrozen", outcome=Outcome.PASSED, message=said, observed=found)
    return Check(
        name="unfrozen", outcome=Outcome.FAILED,
        message=f"{found}: wait, or start it with --despite and the reason, which is recorded",
    )  # fmt: skip


def _spent_budgets(rooms: Rooms, endpoint: str) -> Iterator[str]:
    for one in rooms.watches.standings(rooms):
        if one.objective.endpoint == endpoint and one.objective.freeze and one.budget.spent:
            yield (
                f"the budget of {one.objective.name} is spent ({one.budget.bad:,} of {one.budget.events:,} events of the last "
                f"{one.objective.window_s / 86_400:.3g} days were bad)"
            )
